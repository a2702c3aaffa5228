//! What ranks tell each other before each collective: which one it is, and whether one of them leaves.
//!
//! Ranks that do different things, and one that has failed, are so found out where they meet, and all of them end in
//! order.

use crate::watch::Call;

/// The beginning of a collective on one rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) call: Call,
    /// Number of this collective on its rank.
    pub(crate) sequence: u64,
    /// Number of values or bytes; of the failure's bytes for a rank that leaves. Receivers of bytes do not know it.
    pub(crate) len: u64,
    /// Whose values all get, in a broadcast.
    pub(crate) root: u64,
}

impl Header {
    /// Numbers of a header on the wire.
    pub(crate) const LEN: usize = 4;

    pub(crate) fn to_numbers(self) -> [u64; Self::LEN] {
        [self.call.number(), self.sequence, self.len, self.root]
    }

    pub(crate) fn of_numbers(&[call, sequence, len, root]: &[u64; Self::LEN]) -> Self {
        Self { call: Call::of_number(call), sequence, len, root }
    }

    /// Whether two ranks do the same. Lengths count where they must be the same and both know them.
    fn agrees_with(&self, other: &Header) -> bool {
        let same = (self.call, self.sequence, self.root) == (other.call, other.sequence, other.root);
        let is_free = match self.call {
            Call::Broadcast => self.len == 0 || other.len == 0,
            Call::Gather => true,
            Call::None | Call::AllReduce | Call::Barrier | Call::Leave | Call::ReduceScatter | Call::AllGather => false,
        };
        same && (self.len == other.len || is_free)
    }
}

/// The first rank that leaves.
pub(crate) fn first_leaving(headers: &[Header]) -> Option<usize> {
    headers.iter().position(|header| header.call == Call::Leave)
}

/// The first rank that does other things than most.
pub(crate) fn first_odd(headers: &[Header]) -> Option<usize> {
    let agreeing = |header: &Header| headers.iter().filter(|other| header.agrees_with(other)).count();
    let most = headers.iter().map(agreeing).max()?;
    // of two halves that differ, the first rank's counts as right
    let right = headers.iter().find(|header| agreeing(header) == most)?;
    headers.iter().position(|header| !header.agrees_with(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(call: Call, len: u64) -> Header {
        Header { call, sequence: 3, len, root: 0 }
    }

    #[test]
    fn the_rank_that_does_other_things_than_most_is_found() {
        let (sum, barrier) = (header(Call::AllReduce, 8), header(Call::Barrier, 0));
        assert_eq!(first_odd(&[sum; 3]), None);
        assert_eq!(first_odd(&[barrier, sum, sum]), Some(0));
        assert_eq!(first_odd(&[sum, barrier]), Some(1));
        assert_eq!(first_odd(&[sum, sum, header(Call::AllReduce, 9)]), Some(2));
        let [root, receiver] = [5, 0].map(|len| header(Call::Broadcast, len));
        assert_eq!(first_odd(&[root, receiver, receiver]), None);
        assert_eq!(first_odd(&[1, 0, 9].map(|len| header(Call::Gather, len))), None);
    }

    #[test]
    fn a_rank_that_leaves_is_found() {
        let (sum, leave) = (header(Call::AllReduce, 8), header(Call::Leave, 0));
        assert_eq!(first_leaving(&[sum, sum]), None);
        assert_eq!(first_leaving(&[sum, leave, leave]), Some(1));
    }

    #[test]
    fn a_header_survives_the_wire() {
        let header = Header { call: Call::Broadcast, sequence: 7, len: 1 << 40, root: 3 };
        assert_eq!(Header::of_numbers(&header.to_numbers()), header);
    }
}
