//! Groups of images that are there more than once: the same pixels, or pictures that look alike.

use std::collections::HashMap;

use super::fingerprint::Fingerprint;
use super::near::{Groups, unite};
use crate::source::Source;

/// Images that are there more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Duplicates {
    /// Images with the same pixels after decoding, whatever file format they are stored in.
    pub exact: Vec<DuplicateGroup>,
    /// Images that look alike, such as one picture in several sizes or qualities, with all of their exact copies. A group
    /// grows by one image that looks like another one of it, so its first and its last may differ more.
    pub near: Vec<DuplicateGroup>,
    /// Images too plain to be recognized when they are small; among them only exact copies are found.
    pub plain: Vec<usize>,
}

/// Images that are the same, by their indices in the source, in ascending order. Groups are ordered by their first image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuplicateGroup {
    /// Two or more images.
    pub images: Vec<usize>,
    /// The classes that they have together, in ascending order.
    pub classes: Vec<usize>,
    /// Whether two of them have other classes. An image without a class contradicts none.
    pub is_contradictory: bool,
}

impl Duplicates {
    /// Compares images of `source`, each with its index.
    pub(super) fn among(images: &[(usize, Fingerprint)], source: &dyn Source) -> Self {
        let mut numbers: HashMap<[u8; 32], usize> = HashMap::new();
        let mut copies: Vec<(&Fingerprint, Vec<usize>)> = Vec::new();
        for (index, fingerprint) in images {
            let number = *numbers.entry(fingerprint.content).or_insert(copies.len());
            if number == copies.len() {
                copies.push((fingerprint, Vec::new()));
            }
            copies[number].1.push(*index);
        }
        let distinct: Vec<&Fingerprint> = copies.iter().map(|(fingerprint, _)| *fingerprint).collect();
        let mut groups = Groups::apart(distinct.len());
        unite(&distinct, &mut groups);
        let mut members = vec![Vec::new(); distinct.len()];
        for number in 0..distinct.len() {
            members[groups.root(number)].push(number);
        }
        let near = members.iter().filter(|numbers| numbers.len() > 1);
        let near = near.map(|numbers| numbers.iter().flat_map(|number| &copies[*number].1).copied().collect());
        let exact = copies.iter().map(|(_, indices)| indices.clone()).filter(|indices| indices.len() > 1);
        Self {
            exact: exact.map(|indices| DuplicateGroup::new(indices, source)).collect(),
            near: near.map(|indices| DuplicateGroup::new(indices, source)).collect(),
            plain: images.iter().filter(|(_, fingerprint)| fingerprint.is_plain()).map(|(index, _)| *index).collect(),
        }
    }

    /// Returns the number of images that would go if one of each group of exact copies stayed.
    #[must_use]
    pub fn surplus(&self) -> usize {
        self.exact.iter().map(|group| group.images.len() - 1).sum()
    }

    /// Returns the groups whose images have other classes; one of exact copies is left out if one that looks alike has it.
    #[must_use]
    pub fn contradictions(&self) -> Vec<&DuplicateGroup> {
        let in_near = |group: &DuplicateGroup| self.near.iter().any(|near| near.images.contains(&group.images[0]));
        let exact = self.exact.iter().filter(|group| group.is_contradictory && !in_near(group));
        self.near.iter().filter(|group| group.is_contradictory).chain(exact).collect()
    }
}

impl DuplicateGroup {
    fn new(mut images: Vec<usize>, source: &dyn Source) -> Self {
        images.sort_unstable();
        let mut of_images: Vec<Vec<usize>> = images.iter().map(|index| source.labels(*index)).collect();
        of_images.iter_mut().for_each(|labels| labels.sort_unstable());
        of_images.retain(|labels| !labels.is_empty());
        let is_contradictory = of_images.windows(2).any(|pair| pair[0] != pair[1]);
        let mut classes = of_images.concat();
        classes.sort_unstable();
        classes.dedup();
        Self { images, classes, is_contradictory }
    }
}
