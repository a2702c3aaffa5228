//! The recorder: operations that add nodes to a graph instead of computing.

use crate::graph::{Graph, integer, integers, number};
use crate::messages::{
    DataType, Dimension, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto,
    TensorTypeProto, TypeProto, ValueInfoProto,
};
use simmim_engine::{
    Activation, AttentionBranch, CrossEntropy, Images, Laplace, LayerNorm, Linear, MlpBranch, NormOrder, Operations,
    ParameterId, ParameterTable, PositionMlp, Regression, Segment, SoftLabels,
};
use std::cell::RefCell;
use std::rc::Rc;

/// The version of the operators: the first with layer normalization, of 2022.
pub const OPSET: i64 = 17;

/// The version of the format that belongs to it (onnx/onnx, `docs/Versioning.md`).
const IR_VERSION: i64 = 8;

/// Name of the input.
pub const IMAGES: &str = "images";

/// Name of the symbolic axis.
const BATCH: &str = "batch";

/// Records a graph; see the documentation of the crate.
pub struct Recorder {
    table: ParameterTable,
    values: Vec<f32>,
    graph: RefCell<Graph>,
    /// Channels, height and width of the input, once something reads it.
    input: RefCell<Option<[usize; 3]>>,
}

/// A tensor of the graph.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub(crate) name: Rc<str>,
    /// Its shape for one image.
    pub(crate) shape: Vec<usize>,
    /// Whether it depends on the images. Then its first axis is as many times as long as there are images.
    is_of_images: bool,
}

impl Recorded {
    fn width(&self) -> usize {
        *self.shape.last().expect("a tensor has at least one axis")
    }
}

impl Recorder {
    /// A recorder for the parameters of `table` with the given values.
    ///
    /// # Panics
    /// If there is not one value for each element.
    pub fn new(table: ParameterTable, values: Vec<f32>) -> Self {
        assert_eq!(values.len(), table.len(), "one value per parameter element");
        Self { table, values, graph: RefCell::default(), input: RefCell::default() }
    }

    /// The model that computes these outputs.
    ///
    /// # Panics
    /// If an output does not begin with the axis of images, or nothing read any.
    pub fn finish(self, outputs: &[(&str, Recorded)]) -> ModelProto {
        let mut graph = self.graph.into_inner();
        let [channels, height, width] = self.input.into_inner().expect("a model reads images");
        let mut output = Vec::new();
        for (name, tensor) in outputs {
            assert!(tensor.is_of_images && tensor.shape[0] == 1, "an output has a row for each image");
            graph.nodes.push(NodeProto {
                input: vec![(*tensor.name).to_owned()],
                output: vec![(*name).to_owned()],
                name: format!("Identity_{}", graph.nodes.len()),
                op_type: "Identity".into(),
                attribute: Vec::new(),
            });
            output.push(value_info(name, &tensor.shape[1..]));
        }
        let graph = GraphProto {
            node: graph.nodes,
            name: "simmim".into(),
            initializer: graph.constants,
            input: vec![value_info(IMAGES, &[channels, height, width])],
            output,
        };
        ModelProto {
            ir_version: IR_VERSION,
            producer_name: "simmim".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            doc_string: String::new(),
            graph: Some(graph),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            metadata_props: Vec::new(),
        }
    }

    /// The values of a parameter.
    pub(crate) fn value(&self, id: ParameterId) -> &[f32] {
        &self.values[self.table.get(id).range.clone()]
    }

    /// A parameter as a constant under its name.
    fn constant(&self, id: ParameterId) -> String {
        let parameter = self.table.get(id);
        self.graph.borrow_mut().named(&parameter.name, &parameter.shape, || self.value(id).to_vec())
    }

    /// A weight `[out, in]` as a constant `[in, out]`: what a product takes.
    fn transposed(&self, id: ParameterId) -> (String, usize) {
        let parameter = self.table.get(id);
        let outputs = parameter.shape[0];
        let inputs = parameter.range.len() / outputs;
        let (name, values) = (format!("{}.transposed", parameter.name), self.value(id));
        let transpose = || (0..inputs * outputs).map(|at| values[at % outputs * inputs + at / outputs]).collect();
        (self.graph.borrow_mut().named(&name, &[inputs, outputs], transpose), outputs)
    }

    pub(crate) fn numbers(&self, shape: &[usize], values: &[f32]) -> String {
        self.graph.borrow_mut().numbers(shape, values)
    }

    pub(crate) fn integers(&self, shape: &[usize], values: &[i64]) -> String {
        self.graph.borrow_mut().integers(shape, values)
    }

    /// Adds a node whose first input is `x`; its output has this shape for one image.
    pub(crate) fn apply(
        &self,
        operator: &str,
        x: &Recorded,
        others: &[&str],
        attributes: Vec<crate::messages::AttributeProto>,
        shape: &[usize],
    ) -> Recorded {
        let inputs = [&[&*x.name], others].concat();
        let name = self.graph.borrow_mut().node(operator, &inputs, attributes);
        Recorded { name: name.into(), shape: shape.to_vec(), is_of_images: x.is_of_images }
    }

    /// Adds a node of two tensors; the output has the shape of the first.
    pub(crate) fn join(&self, operator: &str, x: &Recorded, y: &Recorded) -> Recorded {
        let joined = self.apply(operator, x, &[&y.name], Vec::new(), &x.shape);
        Recorded { is_of_images: x.is_of_images || y.is_of_images, ..joined }
    }

    /// `x` and a constant of numbers, by an operator that repeats the constant along `x`.
    pub(crate) fn with_numbers(&self, operator: &str, x: &Recorded, shape: &[usize], values: &[f32]) -> Recorded {
        let constant = self.numbers(shape, values);
        self.apply(operator, x, &[&constant], Vec::new(), &x.shape)
    }

    /// The transposed tensor; axis `i` of the output is axis `order[i]` of `x`.
    pub(crate) fn transpose(&self, x: &Recorded, order: &[usize]) -> Recorded {
        let shape: Vec<usize> = order.iter().map(|axis| x.shape[*axis]).collect();
        let order: Vec<i64> = order.iter().map(|axis| *axis as i64).collect();
        self.apply("Transpose", x, &[], vec![integers("perm", &order)], &shape)
    }

    /// Some of the rows of each image, `[B, N, D]` → `[B, R, D]`.
    pub(crate) fn gather(&self, x: &Recorded, rows: &[i64]) -> Recorded {
        let index = self.integers(&[rows.len()], rows);
        let [images, _, width] = x.shape[..] else { panic!("expected [B, N, D], got {:?}", x.shape) };
        self.apply("Gather", x, &[&index], vec![integer("axis", 1)], &[images, rows.len(), width])
    }

    /// Splits the last axis into equal parts.
    pub(crate) fn split<const PARTS: usize>(&self, x: &Recorded) -> [Recorded; PARTS] {
        let attributes = vec![integer("axis", -1)];
        let names = self.graph.borrow_mut().node_of_many("Split", &[&x.name], attributes, PARTS);
        let mut shape = x.shape.clone();
        *shape.last_mut().expect("a tensor has at least one axis") /= PARTS;
        std::array::from_fn(|i| Recorded { name: names[i].as_str().into(), shape: shape.clone(), ..x.clone() })
    }

    /// The first half of the last axis by its sigmoid, times the second.
    fn swiglu(&self, x: &Recorded) -> Recorded {
        let [gate, value] = self.split(x);
        let share = self.apply("Sigmoid", &gate, &[], Vec::new(), &gate.shape);
        self.join("Mul", &self.join("Mul", &gate, &share), &value)
    }

    /// The product with a weight `[out, in]`.
    pub(crate) fn product(&self, x: &Recorded, weight: ParameterId) -> Recorded {
        let (weight, outputs) = self.transposed(weight);
        let mut shape = x.shape.clone();
        *shape.last_mut().expect("a tensor has at least one axis") = outputs;
        self.apply("MatMul", x, &[&weight], Vec::new(), &shape)
    }

    /// `x + scale·f(x)` with the norm in front of `f` or behind it.
    fn residual(
        &self,
        x: &Recorded,
        norm: &LayerNorm,
        order: NormOrder,
        layer_scale: Option<ParameterId>,
        drop_path_scale: Option<&[f32]>,
        f: impl FnOnce(&Recorded) -> Recorded,
    ) -> Recorded {
        assert!(drop_path_scale.is_none(), "drop path is for training");
        let branch = match order {
            NormOrder::Pre => f(&self.layer_norm(x, norm)),
            NormOrder::Post => self.layer_norm(&f(x), norm),
        };
        let branch = match layer_scale {
            None => branch,
            Some(scale) => self.apply("Mul", &branch, &[&self.constant(scale)], Vec::new(), &branch.shape),
        };
        self.join("Add", x, &branch)
    }
}

/// Name and type of f32 values with a row of this shape for each image.
fn value_info(name: &str, of_image: &[usize]) -> ValueInfoProto {
    let lengths = of_image.iter().map(|length| Dimension::Value(*length as i64));
    let axes = [Dimension::Param(BATCH.into())].into_iter().chain(lengths);
    let dim = axes.map(|value| DimensionProto { value: Some(value) }).collect();
    let tensor_type =
        Some(TensorTypeProto { elem_type: DataType::Float.into(), shape: Some(TensorShapeProto { dim }) });
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type }) }
}

/// What is asked for has no meaning in a graph for any number of images.
fn only_of_training(operation: &str) -> ! {
    panic!("`{operation}` is not part of an encoder or a classifier that is used, and is not recorded")
}

impl Operations for Recorder {
    type Tensor = Recorded;

    fn tensor(&self, shape: &[usize], data: &[f32]) -> Recorded {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "values do not fill shape {shape:?}");
        Recorded { name: self.numbers(shape, data).into(), shape: shape.to_vec(), is_of_images: false }
    }

    /// The shape for one image.
    fn shape(&self, x: &Recorded) -> Vec<usize> {
        x.shape.clone()
    }

    fn read(&self, _: &Recorded) -> Vec<f32> {
        only_of_training("read")
    }

    fn reshape(&self, x: &Recorded, shape: &[usize]) -> Recorded {
        assert_eq!(shape.iter().product::<usize>(), x.shape.iter().product::<usize>(), "{shape:?} of {:?}", x.shape);
        let mut lengths: Vec<i64> = shape.iter().map(|length| *length as i64).collect();
        if x.is_of_images {
            lengths[0] = -1; // as long as the number of images makes it
        }
        let lengths = self.integers(&[lengths.len()], &lengths);
        self.apply("Reshape", x, &[&lengths], Vec::new(), shape)
    }

    fn parameter(&self, id: ParameterId) -> Recorded {
        let shape = self.table.get(id).shape.clone();
        Recorded { name: self.constant(id).into(), shape, is_of_images: false }
    }

    /// Reads the input of the graph; of `images`, only the sizes count.
    fn patch_embed(&self, images: &Images, patch: (usize, usize), linear: &Linear) -> Recorded {
        let sizes = [images.channels, images.height, images.width];
        assert_eq!(images.count, 1, "one image is traced");
        assert!(self.input.borrow_mut().replace(sizes).is_none_or(|other| other == sizes), "there is one input");
        let input = Recorded {
            name: IMAGES.into(),
            shape: vec![1, images.channels, images.height, images.width],
            is_of_images: true,
        };
        let constants: Vec<String> = linear.parameters().into_iter().map(|id| self.constant(id)).collect();
        let constants: Vec<&str> = constants.iter().map(String::as_str).collect();
        let sides = [patch.0 as i64, patch.1 as i64];
        let attributes = vec![integers("kernel_shape", &sides), integers("strides", &sides)];
        let (rows, columns) = (images.height / patch.0, images.width / patch.1);
        let width = self.table.get(linear.weight).shape[0];
        let map = self.apply("Conv", &input, &constants, attributes, &[1, width, rows, columns]);
        self.transpose(&self.reshape(&map, &[1, width, rows * columns]), &[0, 2, 1]) // [B, N, D]
    }

    fn mask_tokens(&self, _: &Recorded, _: &[bool], _: ParameterId) -> Recorded {
        only_of_training("mask_tokens")
    }

    fn prepend_tokens(&self, x: &Recorded, tokens: ParameterId) -> Recorded {
        let [images, others, width] = x.shape[..] else { panic!("expected [B, N, D], got {:?}", x.shape) };
        let first = self.table.get(tokens).shape[1];
        let rest = self.integers(&[2], &[first as i64, width as i64]);
        let tokens = self.constant(tokens);
        let mut graph = self.graph.borrow_mut();
        let count = graph.node("Shape", &[&x.name], vec![integer("start", 0), integer("end", 1)]);
        let shape = graph.node("Concat", &[&count, &rest], vec![integer("axis", 0)]);
        let tokens_of_each = graph.node("Expand", &[&tokens, &shape], Vec::new());
        let name = graph.node("Concat", &[&tokens_of_each, &x.name], vec![integer("axis", 1)]);
        Recorded { name: name.into(), shape: vec![images, first + others, width], ..x.clone() }
    }

    fn add_positions(&self, x: &Recorded, positions: ParameterId) -> Recorded {
        self.apply("Add", x, &[&self.constant(positions)], Vec::new(), &x.shape)
    }

    fn attention_branch(
        &self,
        x: &Recorded,
        branch: &AttentionBranch,
        bias_table: Option<&Recorded>,
        drop_path_scale: Option<&[f32]>,
    ) -> Recorded {
        self.residual(x, &branch.norm, branch.order, branch.layer_scale, drop_path_scale, |x| {
            self.linear(&self.attention(x, branch, bias_table), &branch.projection)
        })
    }

    /// Computed here: the table is a constant, for it does not depend on the images.
    fn continuous_position_bias(&self, offsets: &[f32], mlp: &PositionMlp) -> Recorded {
        let (first, bias, second) = (self.value(mlp.fc1_weight), self.value(mlp.fc1_bias), self.value(mlp.fc2_weight));
        let heads = self.table.get(mlp.fc2_weight).shape[0];
        let sum = |a: &[f64], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * f64::from(*b)).sum::<f64>();
        let row = |offset: &[f32]| {
            let offset = [f64::from(offset[0]), f64::from(offset[1])];
            let hidden =
                first.chunks(2).zip(bias).map(|(weight, bias)| (sum(&offset, weight) + f64::from(*bias)).max(0.0));
            let hidden: Vec<f64> = hidden.collect();
            second
                .chunks(hidden.len())
                .map(|weight| (16.0 / (1.0 + (-sum(&hidden, weight)).exp())) as f32)
                .collect::<Vec<f32>>()
        };
        let table: Vec<f32> = offsets.chunks(2).flat_map(row).collect();
        self.tensor(&[offsets.len() / 2, heads], &table)
    }

    fn mlp_branch(&self, x: &Recorded, branch: &MlpBranch, drop_path_scale: Option<&[f32]>) -> Recorded {
        self.residual(x, &branch.norm, branch.order, branch.layer_scale, drop_path_scale, |x| {
            let first = self.linear(x, &branch.fc1);
            let hidden = match branch.activation {
                Activation::Gelu => self.gelu(&first),
                Activation::SwiGlu => self.swiglu(&first),
            };
            self.linear(&hidden, &branch.fc2)
        })
    }

    fn recompute(&self, x: &Recorded, segment: Segment<Self>) -> Recorded {
        segment(self, x)
    }

    fn frozen(&self, x: &Recorded, segment: Segment<Self>) -> Recorded {
        segment(self, x)
    }

    fn layer_norm(&self, x: &Recorded, norm: &LayerNorm) -> Recorded {
        let (scale, shift) = (self.constant(norm.weight), self.constant(norm.bias));
        let attributes = vec![integer("axis", -1), number("epsilon", norm.eps)];
        self.apply("LayerNormalization", x, &[&scale, &shift], attributes, &x.shape)
    }

    fn linear(&self, x: &Recorded, linear: &Linear) -> Recorded {
        let product = self.product(x, linear.weight);
        match linear.bias {
            None => product,
            Some(bias) => self.apply("Add", &product, &[&self.constant(bias)], Vec::new(), &product.shape),
        }
    }

    fn gelu(&self, x: &Recorded) -> Recorded {
        // x/2·(1 + erf(x/√2)), the form that runtimes know and compute at once
        let erf = self.with_numbers("Div", x, &[], &[std::f32::consts::SQRT_2]);
        let erf = self.apply("Erf", &erf, &[], Vec::new(), &x.shape);
        let twice = self.join("Mul", x, &self.with_numbers("Add", &erf, &[], &[1.0]));
        self.with_numbers("Mul", &twice, &[], &[0.5])
    }

    fn gather_rows(&self, x: &Recorded, rows: &[u32]) -> Recorded {
        let width = x.width();
        let tokens = x.shape.iter().product::<usize>() / width;
        let rows: Vec<i64> = rows.iter().map(|row| i64::from(*row)).collect();
        let gathered = self.gather(&self.reshape(x, &[1, tokens, width]), &rows); // [B, R, D]
        self.reshape(&gathered, &[rows.len(), width])
    }

    fn mean_tokens(&self, x: &Recorded) -> Recorded {
        let [images, _, width] = x.shape[..] else { panic!("expected [B, N, D], got {:?}", x.shape) };
        let attributes = vec![integers("axes", &[1]), integer("keepdims", 0)];
        self.apply("ReduceMean", x, &[], attributes, &[images, width])
    }

    fn regression(&self, _: &Recorded, _: &Regression) -> Recorded {
        only_of_training("regression")
    }

    fn cross_entropy(&self, _: &Recorded, _: &CrossEntropy) -> Recorded {
        only_of_training("cross_entropy")
    }

    fn soft_labels(&self, _: &Recorded, _: &SoftLabels) -> Recorded {
        only_of_training("soft_labels")
    }

    fn convolution(&self, _: &Recorded, _: &Linear) -> Recorded {
        only_of_training("convolution")
    }

    fn relu(&self, x: &Recorded) -> Recorded {
        self.apply("Relu", x, &[], Vec::new(), &x.shape)
    }

    fn max_pool(&self, _: &Recorded) -> Recorded {
        only_of_training("max_pool")
    }

    fn upsample(&self, _: &Recorded) -> Recorded {
        only_of_training("upsample")
    }

    fn add(&self, x: &Recorded, factor: f32, y: &Recorded) -> Recorded {
        self.join("Add", x, &self.with_numbers("Mul", y, &[], &[factor]))
    }

    fn gumbel_softmax(&self, _: &Recorded, _: &[f32], _: f32) -> Recorded {
        only_of_training("gumbel_softmax")
    }

    fn laplace(&self, _: &Recorded, _: &Laplace) -> Recorded {
        only_of_training("laplace")
    }

    fn uniform_divergence(&self, _: &Recorded) -> Recorded {
        only_of_training("uniform_divergence")
    }
}
