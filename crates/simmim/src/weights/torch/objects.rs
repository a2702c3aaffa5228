//! What a pickle of weights may hold, and the few names that it may call to make it.

use super::TorchFault;
use safetensors::Dtype;

/// The number of a value among all of a pickle. Values refer to each other by number, so that one that holds itself, or
/// a million nested ones, are read and dropped without recursion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(pub(super) u32);

/// A value of a pickle; what weights do not need of it is not kept.
#[derive(Debug)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Int(i64),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage<'a>),
    Tensor(Box<Tensor<'a>>),
    /// An object that is passed over, by its class.
    Object(&'static str),
    /// A number with a fraction, a truth value, `None`, or bytes.
    Plain,
}

/// The values that tensors are views of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Storage<'a> {
    /// What the file calls it: digits.
    pub(super) key: &'a str,
    pub(super) dtype: Dtype,
    pub(super) values: u64,
}

/// A view of a storage; offset and strides are in values.
#[derive(Clone, Debug)]
pub(super) struct Tensor<'a> {
    pub(super) storage: Storage<'a>,
    pub(super) offset: u64,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<u64>,
}

impl Tensor<'_> {
    /// The number of its values; `None` if there is no such number.
    pub(super) fn values(&self) -> Option<u64> {
        self.shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size as u64))
    }

    /// Whether its last value lies in the storage.
    pub(super) fn is_within(&self) -> bool {
        let mut axes = self.shape.iter().zip(&self.strides);
        let last = axes.try_fold(self.offset, |last, (size, stride)| {
            last.checked_add(stride.checked_mul((*size as u64).saturating_sub(1))?)
        });
        self.values() == Some(0) || last.is_some_and(|last| last < self.storage.values)
    }

    /// Whether its values lie in one piece, in their order.
    pub(super) fn is_contiguous(&self) -> bool {
        let mut expected = 1u64;
        let mut axes = self.shape.iter().zip(&self.strides).rev();
        self.values() == Some(0)
            || axes.all(|(size, stride)| {
                let fits = *size == 1 || *stride == expected;
                expected = expected.saturating_mul(*size as u64);
                fits
            })
    }
}

/// A class or function that a pickle may name. None is ever called: what each makes of its arguments is written here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    StorageOf(Dtype),
    /// A class whose objects lie beside weights and are passed over.
    PassedOver(&'static str),
}

impl Global {
    /// # Errors
    /// If it is not one of them.
    pub(super) fn named(module: &str, name: &str) -> Result<Self, TorchFault> {
        let passed_over = Global::PassedOver;
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
            ("torch", "FloatStorage") => Global::StorageOf(Dtype::F32),
            ("torch", "HalfStorage") => Global::StorageOf(Dtype::F16),
            ("torch", "BFloat16Storage") => Global::StorageOf(Dtype::BF16),
            ("torch", "DoubleStorage") => Global::StorageOf(Dtype::F64),
            ("torch", "LongStorage") => Global::StorageOf(Dtype::I64),
            ("torch", "IntStorage") => Global::StorageOf(Dtype::I32),
            ("torch", "ShortStorage") => Global::StorageOf(Dtype::I16),
            ("torch", "CharStorage") => Global::StorageOf(Dtype::I8),
            ("torch", "ByteStorage") => Global::StorageOf(Dtype::U8),
            ("torch", "BoolStorage") => Global::StorageOf(Dtype::BOOL),
            // what the checkpoints of microsoft/SimMIM, and of those it builds on, hold beside the weights
            ("yacs.config", "CfgNode") => passed_over("yacs.config.CfgNode"),
            ("argparse", "Namespace") => passed_over("argparse.Namespace"),
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => passed_over("a scalar of numpy"),
            ("numpy", "dtype") => passed_over("numpy.dtype"),
            ("_codecs", "encode") => passed_over("bytes"),
            ("__builtin__" | "builtins", "set") => passed_over(SET),
            _ => return Err(TorchFault::Global(format!("{module}.{name}"))),
        })
    }
}

/// What a set is called.
pub(super) const SET: &str = "set";
