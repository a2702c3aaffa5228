//! Several sources joined to one.

use std::sync::Arc;

use super::{PassedOver, Source};
use crate::encoded::Encoded;
use crate::error::{Error, Result};

pub(super) struct Concat {
    parts: Vec<Arc<dyn Source>>,
    /// The index after the last sample of each part, ascending.
    ends: Vec<usize>,
    classes: Vec<String>,
    passed_over: PassedOver,
}

impl Concat {
    /// Joins `parts`; errors call them by `names`.
    ///
    /// If one part is unlabeled, the whole is. Labeled parts must have the same classes. `passed_over` lies beside the
    /// parts; what the parts pass over is added.
    pub(super) fn new(parts: Vec<Arc<dyn Source>>, names: &[String], mut passed_over: PassedOver) -> Result<Self> {
        for (part, name) in parts.iter().zip(names).skip(1) {
            let (first, second) = (parts[0].classes(), part.classes());
            if first != second && !first.is_empty() && !second.is_empty() {
                return Err(disagreement((&names[0], first), (name, second)));
            }
        }
        let is_labeled = parts.iter().all(|part| !part.classes().is_empty());
        let classes = if is_labeled { parts[0].classes().to_vec() } else { Vec::new() };
        let ends = parts.iter().scan(0, |end, part| {
            *end += part.len();
            Some(*end)
        });
        parts.iter().for_each(|part| passed_over.append(part.passed_over()));
        Ok(Self { ends: ends.collect(), classes, parts, passed_over })
    }

    /// Returns the part that contains sample `index`, and the index of the sample in this part.
    fn locate(&self, index: usize) -> (&dyn Source, usize) {
        let part = self.ends.partition_point(|end| *end <= index);
        let start = if part == 0 { 0 } else { self.ends[part - 1] };
        (&*self.parts[part], index - start)
    }
}

/// The error for two named sources with different classes; it says at which class number they differ first.
pub(super) fn disagreement(first: (&str, &[String]), second: (&str, &[String])) -> Error {
    let position = first.1.iter().zip(second.1).take_while(|(first, second)| first == second).count();
    let class = |classes: &[String]| classes.get(position).map_or("(none)", String::as_str).to_owned();
    Error::ClassesDisagree {
        first: first.0.to_owned(),
        second: second.0.to_owned(),
        position,
        first_class: class(first.1),
        second_class: class(second.1),
    }
}

impl Source for Concat {
    fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn name(&self, index: usize) -> String {
        let (part, index) = self.locate(index);
        part.name(index)
    }

    fn encoded(&self, index: usize) -> Result<Encoded> {
        let (part, index) = self.locate(index);
        part.encoded(index)
    }

    fn label(&self, index: usize) -> Option<usize> {
        let (part, index) = self.locate(index);
        if self.classes.is_empty() { None } else { part.label(index) }
    }

    fn labels(&self, index: usize) -> Vec<usize> {
        let (part, index) = self.locate(index);
        if self.classes.is_empty() { Vec::new() } else { part.labels(index) }
    }

    fn is_labeled(&self, index: usize) -> bool {
        let (part, index) = self.locate(index);
        !self.classes.is_empty() && part.is_labeled(index)
    }

    fn passed_over(&self) -> &PassedOver {
        &self.passed_over
    }

    fn why_unlabeled(&self) -> Option<Error> {
        self.parts.iter().find(|part| part.classes().is_empty())?.why_unlabeled()
    }
}
