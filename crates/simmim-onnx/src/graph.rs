//! A graph under construction: nodes, and the constants that they read. What is there already is not added again.

use crate::messages::{AttributeProto, AttributeType, DataLocation, DataType, NodeProto, TensorProto};

/// Nodes and constants.
#[derive(Default)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<NodeProto>,
    pub(crate) constants: Vec<TensorProto>,
}

impl Graph {
    /// Adds a node of one output; returns the name of its output.
    pub(crate) fn node(&mut self, operator: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        self.node_of_many(operator, inputs, attributes, 1).remove(0)
    }

    /// Adds a node; returns the names of its outputs.
    pub(crate) fn node_of_many(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
        outputs: usize,
    ) -> Vec<String> {
        let is_same = |node: &&NodeProto| {
            node.op_type == operator
                && node.input == inputs
                && node.attribute == attributes
                && node.output.len() == outputs
        };
        if let Some(node) = self.nodes.iter().find(is_same) {
            return node.output.clone();
        }
        let name = format!("{operator}_{}", self.nodes.len());
        let output: Vec<String> = match outputs {
            1 => vec![name.clone()],
            _ => (0..outputs).map(|i| format!("{name}.{i}")).collect(),
        };
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: output.clone(),
            name,
            op_type: operator.to_owned(),
            attribute: attributes,
        });
        output
    }

    /// A constant of numbers under a name of its own, such as a parameter; returns the name.
    pub(crate) fn named(&mut self, name: &str, shape: &[usize], values: impl FnOnce() -> Vec<f32>) -> String {
        if !self.constants.iter().any(|constant| constant.name == name) {
            let bytes = values().iter().flat_map(|value| value.to_le_bytes()).collect();
            self.add(name.to_owned(), shape, DataType::Float, bytes);
        }
        name.to_owned()
    }

    /// A constant of numbers; returns its name.
    pub(crate) fn numbers(&mut self, shape: &[usize], values: &[f32]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(shape, DataType::Float, bytes)
    }

    /// A constant of integers; returns its name.
    pub(crate) fn integers(&mut self, shape: &[usize], values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(shape, DataType::Int64, bytes)
    }

    fn constant(&mut self, shape: &[usize], kind: DataType, bytes: Vec<u8>) -> String {
        let dims: Vec<i64> = shape.iter().map(|length| *length as i64).collect();
        let is_same =
            |other: &&TensorProto| other.dims == dims && other.data_type == i32::from(kind) && other.raw_data == bytes;
        if let Some(same) = self.constants.iter().find(is_same) {
            return same.name.clone();
        }
        let name = format!("constant_{}", self.constants.len());
        self.add(name.clone(), shape, kind, bytes);
        name
    }

    fn add(&mut self, name: String, shape: &[usize], kind: DataType, raw_data: Vec<u8>) {
        self.constants.push(TensorProto {
            dims: shape.iter().map(|length| *length as i64).collect(),
            data_type: kind.into(),
            name,
            raw_data,
            external_data: Vec::new(),
            data_location: DataLocation::Default.into(),
        });
    }
}

/// An attribute that is an integer.
pub(crate) fn integer(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i: value, r#type: AttributeType::Int.into(), ..AttributeProto::default() }
}

/// An attribute that is a list of integers.
pub(crate) fn integers(name: &str, values: &[i64]) -> AttributeProto {
    let (name, ints) = (name.into(), values.to_vec());
    AttributeProto { name, ints, r#type: AttributeType::Ints.into(), ..AttributeProto::default() }
}

/// An attribute that is a number.
pub(crate) fn number(name: &str, value: f32) -> AttributeProto {
    AttributeProto { name: name.into(), f: value, r#type: AttributeType::Float.into(), ..AttributeProto::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_added_again() {
        let mut graph = Graph::default();
        let two = graph.integers(&[1], &[2]);
        assert_eq!(graph.integers(&[1], &[2]), two);
        assert_ne!(graph.integers(&[], &[2]), two);
        let a = graph.node("Transpose", &["x"], vec![integers("perm", &[1, 0])]);
        assert_eq!(graph.node("Transpose", &["x"], vec![integers("perm", &[1, 0])]), a);
        assert_ne!(graph.node("Transpose", &["x"], vec![integers("perm", &[0, 1])]), a);
        assert_eq!(graph.node_of_many("Split", &["x"], vec![integer("axis", 1)], 2), ["Split_2.0", "Split_2.1"]);
        assert_eq!((graph.nodes.len(), graph.constants.len()), (3, 2));
    }
}
