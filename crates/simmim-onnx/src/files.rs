//! A model as the bytes of its files: one, or two where one message cannot hold it.

use crate::messages::{DataLocation, ModelProto, StringStringEntryProto};
use prost::Message;

/// The most bytes of a file that everyone can read: a message of Protocol Buffers may have 2 GiB, less one byte.
pub const MOST_BYTES: usize = i32::MAX as usize;

/// Constants below this many bytes stay in the model: shapes and axes are needed before any data is.
const SMALL_BYTES: usize = 1 << 10;

/// The content of a model's files.
pub struct Files {
    /// The model.
    pub model: Vec<u8>,
    /// The values that are in the file beside it, one piece behind the other; none if all are in the model.
    pub data: Vec<Vec<u8>>,
}

/// Encodes a model. If it has more than `most_bytes`, its large constants move to a file of the name `data_name` beside
/// it (ONNX, `docs/ExternalData.md`).
pub fn files(mut model: ModelProto, most_bytes: usize, data_name: &str) -> Files {
    if model.encoded_len() <= most_bytes {
        return Files { model: model.encode_to_vec(), data: Vec::new() };
    }
    let mut data = Vec::new();
    let mut offset = 0;
    let constants = model.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
    for constant in constants.filter(|constant| constant.raw_data.len() >= SMALL_BYTES) {
        let bytes = std::mem::take(&mut constant.raw_data);
        let said =
            [("location", data_name.to_owned()), ("offset", offset.to_string()), ("length", bytes.len().to_string())];
        let entry = |(key, value): (&str, String)| StringStringEntryProto { key: key.into(), value };
        constant.external_data = said.into_iter().map(entry).collect();
        constant.data_location = DataLocation::External.into();
        offset += bytes.len();
        data.push(bytes);
    }
    Files { model: model.encode_to_vec(), data }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;
    use crate::messages::GraphProto;

    #[test]
    fn large_constants_move_to_a_file_of_their_own() {
        let mut graph = Graph::default();
        for (name, count) in [("a", 300), ("small", 3), ("b", 500)] {
            graph.named(name, &[count], || (0..count).map(|i| i as f32).collect());
        }
        let graph = GraphProto { initializer: graph.constants, ..GraphProto::default() };
        let model = ModelProto { graph: Some(graph), ..ModelProto::default() };

        let inside = files(model.clone(), 4000, "model.onnx.data");
        assert!(inside.data.is_empty());
        assert_eq!(ModelProto::decode(inside.model.as_slice()).unwrap(), model);

        let outside = files(model, 3000, "model.onnx.data");
        assert_eq!(outside.data.iter().map(Vec::len).collect::<Vec<_>>(), [1200, 2000]);
        let graph = ModelProto::decode(outside.model.as_slice()).unwrap().graph.unwrap();
        let [a, small, b] = &graph.initializer[..] else { panic!("three constants") };
        assert!(small.external_data.is_empty() && small.raw_data.len() == 12);
        assert!(a.raw_data.is_empty() && a.data_location() == DataLocation::External);
        let said: Vec<&str> = b.external_data.iter().map(|entry| entry.value.as_str()).collect();
        assert_eq!(said, ["model.onnx.data", "1200", "2000"]);
    }
}
