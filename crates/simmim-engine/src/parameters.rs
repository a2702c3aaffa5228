//! The table of parameters: which range of the flat buffers belongs to which name and shape.

use std::collections::HashMap;
use std::ops::Range;

/// Index of a parameter in its [`ParameterTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParameterId(pub usize);

/// One named range of the flat buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Name of the published checkpoints, `encoder.blocks.0.attn.qkv.weight`.
    pub name: String,
    /// Shape of the published checkpoints, `[out, in]` for a linear weight.
    pub shape: Vec<usize>,
    /// Where its values lie in each flat buffer.
    pub range: Range<usize>,
}

/// Names, shapes and ranges of all parameters, in the order they were added.
#[derive(Clone, Debug, Default)]
pub struct ParameterTable {
    parameters: Vec<Parameter>,
    by_name: HashMap<String, ParameterId>,
}

impl ParameterTable {
    /// Adds a parameter behind the ones already there.
    ///
    /// # Panics
    /// If the name is taken: two parameters would load from one tensor.
    pub fn add(&mut self, name: &str, shape: &[usize]) -> ParameterId {
        let start = self.len();
        let id = ParameterId(self.parameters.len());
        let range = start..start + shape.iter().product::<usize>();
        self.parameters.push(Parameter { name: name.to_owned(), shape: shape.to_vec(), range });
        let taken = self.by_name.insert(name.to_owned(), id);
        assert!(taken.is_none(), "parameter `{name}` is added twice");
        id
    }

    /// Number of values of all parameters together: the length of each flat buffer.
    pub fn len(&self) -> usize {
        self.parameters.last().map_or(0, |p| p.range.end)
    }

    /// Whether there is no parameter at all.
    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty()
    }

    /// The parameter behind an id.
    pub fn get(&self, id: ParameterId) -> &Parameter {
        &self.parameters[id.0]
    }

    /// The id of a name.
    pub fn find(&self, name: &str) -> Option<ParameterId> {
        self.by_name.get(name).copied()
    }

    /// All parameters in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Parameter> {
        self.parameters.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_lie_one_behind_the_other() {
        let mut table = ParameterTable::default();
        let a = table.add("a", &[2, 3]);
        let b = table.add("b", &[4]);
        assert_eq!((table.get(a).range.clone(), table.get(b).range.clone(), table.len()), (0..6, 6..10, 10));
        assert_eq!(table.find("b"), Some(b));
        assert_eq!(table.find("c"), None);
    }

    #[test]
    #[should_panic(expected = "added twice")]
    fn a_name_is_taken_once() {
        let mut table = ParameterTable::default();
        table.add("a", &[1]);
        table.add("a", &[1]);
    }
}
