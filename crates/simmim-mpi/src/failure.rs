//! Why a rank leaves, as bytes for the others.

use simmim_engine::RankFailure;

/// Between the parts; no message has it.
const SEPARATOR: char = '\0';

/// The failure as text: message, hint, and whose fault it is.
pub(crate) fn to_bytes(failure: &RankFailure) -> Vec<u8> {
    let hint = failure.hint.as_deref().unwrap_or_default();
    let is_users = if failure.is_users_fault { "user" } else { "" };
    format!("{}{SEPARATOR}{hint}{SEPARATOR}{is_users}", failure.message).into_bytes()
}

/// The failure of such text.
pub(crate) fn of_bytes(bytes: &[u8]) -> RankFailure {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split(SEPARATOR);
    let mut next = || parts.next().unwrap_or_default().to_owned();
    let (message, hint, is_users) = (next(), next(), next());
    RankFailure { message, hint: Some(hint).filter(|hint| !hint.is_empty()), is_users_fault: is_users == "user" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_wire() {
        for (hint, is_users_fault) in [(None, false), (Some("free some space".to_owned()), true)] {
            let failure = RankFailure { message: "naïve".into(), hint, is_users_fault };
            assert_eq!(of_bytes(&to_bytes(&failure)), failure);
        }
    }
}
