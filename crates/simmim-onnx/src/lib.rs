//! Models as ONNX graphs, recorded by running their own code.
//!
//! [`Recorder`] implements the [`Operations`](simmim_engine::Operations) that every model is written in. Each call adds
//! nodes to a graph instead of computing, so there is no second description of any model, and an architecture that is
//! added is exported as it is. One image is traced, and the graph computes any number of them: the first axis of what
//! depends on the images is symbolic.
//!
//! Nothing here knows a model, a recipe or a file.
//!
//! ```
//! use simmim_engine::{Images, Linear, Operations, ParameterTable};
//! use simmim_onnx::{Recorder, messages::ModelProto};
//!
//! let mut table = ParameterTable::default();
//! let linear = Linear { weight: table.add("weight", &[2, 3, 4, 4]), bias: Some(table.add("bias", &[2])) };
//! let values = vec![0.5; table.len()];
//! let b = Recorder::new(table, values);
//! let one_image = Images { pixels: &[], count: 1, channels: 3, height: 8, width: 12 };
//! let tokens = b.patch_embed(&one_image, (4, 4), &linear);
//! assert_eq!(b.shape(&tokens), [1, 6, 2]);
//! let model: ModelProto = b.finish(&[("tokens", tokens)]);
//! assert_eq!(model.graph.unwrap().output[0].name, "tokens");
//! ```

#![forbid(unsafe_code)]

mod attention;
mod files;
mod graph;
pub mod messages;
mod recorder;

pub use files::{Files, MOST_BYTES, files};
pub use recorder::{IMAGES, OPSET, Recorded, Recorder};
