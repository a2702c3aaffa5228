//! The unreadable images of a run: each is counted once and named once, however often it is drawn, and also over several
//! processes that work on the run.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Number of unreadable images of a collection that are named; the others are only counted.
pub const MAX_NAMED: usize = 10;

/// A collection of images that a run reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Collection {
    /// The images that it learns from.
    Training,
    /// The images that it is evaluated on.
    HeldOut,
    /// Those of `monitor.train`.
    MonitorTrain,
    /// Those of `monitor.val`.
    MonitorVal,
}

impl Collection {
    /// Its images, as messages call them.
    pub fn name(self) -> &'static str {
        match self {
            Collection::Training => "training images",
            Collection::HeldOut => "held-out images",
            Collection::MonitorTrain => "images of `monitor.train`",
            Collection::MonitorVal => "images of `monitor.val`",
        }
    }
}

/// The unreadable images found so far, by their numbers in each collection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Unreadable(BTreeMap<Collection, BTreeSet<usize>>);

impl Unreadable {
    /// Counts an image; returns whether it is to be named, because it is new and one of the first.
    pub fn insert(&mut self, collection: Collection, index: usize) -> bool {
        let found = self.0.entry(collection).or_default();
        found.insert(index) && found.len() <= MAX_NAMED
    }

    /// Number of unreadable images of a collection.
    pub fn count(&self, collection: Collection) -> u64 {
        self.0.get(&collection).map_or(0, BTreeSet::len) as u64
    }

    /// The collections that have unreadable images, with their number.
    pub fn counts(&self) -> impl Iterator<Item = (Collection, u64)> {
        self.0.iter().map(|(collection, found)| (*collection, found.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_counted_and_named_once_and_the_eleventh_is_not_named() {
        let mut unreadable = Unreadable::default();
        let mut named = 0;
        for _ in 0..3 {
            named += (0..25).filter(|index| unreadable.insert(Collection::Training, *index)).count();
        }
        assert_eq!((named, unreadable.count(Collection::Training)), (MAX_NAMED, 25));
        assert!(unreadable.insert(Collection::HeldOut, 3), "another collection");
        let stored: Unreadable = serde_json::from_str(&serde_json::to_string(&unreadable).unwrap()).unwrap();
        assert_eq!(stored, unreadable);
    }
}
