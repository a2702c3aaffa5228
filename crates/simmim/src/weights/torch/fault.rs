//! Why a file of torch is not read.

/// What is wrong with a file of `torch.save`, or what it holds that is not read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TorchFault {
    /// A file of torch before version 1.6.
    #[error("it has the format of torch before version 1.6")]
    Legacy,
    /// A pickle without the archive around it.
    #[error("it is a plain pickle, not a file of `torch.save`")]
    PlainPickle,
    /// The archive is damaged, or none that torch writes.
    #[error("it is not a complete archive of `torch.save`: {0}")]
    Archive(String),
    /// A storage cannot be used.
    #[error("its storage `{key}` {what}")]
    Storage {
        /// What the file calls it.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// The pickle names a class or function that is not allowed.
    #[error("its pickle names `{0}`, which could be code and is not read")]
    Global(String),
    /// The pickle has an instruction that is not allowed.
    #[error("its pickle has the instruction `{name}` at byte {at}, which is not read")]
    Opcode {
        /// Its name in Python's `pickletools`, or its code.
        name: String,
        /// Where it stands.
        at: usize,
    },
    /// The pickle ends early.
    #[error("its pickle ends early, at byte {0}")]
    Truncated(usize),
    /// An instruction of the pickle finds other values than it needs.
    #[error("its pickle is broken at byte {at}: {what}")]
    Broken {
        /// What is wrong.
        what: &'static str,
        /// Where.
        at: usize,
    },
    /// The pickle has too many values or bytes.
    #[error("its pickle has more than {limit} {what}, and that of a model has a hundredth")]
    TooLarge {
        /// What there are too many of.
        what: &'static str,
        /// How many are read.
        limit: usize,
    },
    /// There is no state dict where one is looked for.
    #[error("no state dict is found in it; at the top are {0}")]
    NoStateDict(String),
    /// A state dict has something else among its tensors.
    #[error("`{name}` among its weights is {what}, which is not read")]
    NotTensor {
        /// Its key.
        name: String,
        /// What it is.
        what: String,
    },
    /// A tensor is larger than its storage or reaches beyond it.
    #[error("tensor `{tensor}` of the shape {shape:?} reaches beyond its storage of {values} values")]
    BeyondStorage {
        /// Name of the tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// What the storage has.
        values: u64,
    },
    /// All tensors together claim more than the file can hold.
    #[error("its tensors claim {bytes} bytes, and the file has {file}")]
    Claims {
        /// What they claim.
        bytes: u64,
        /// Length of the file.
        file: u64,
    },
}

impl TorchFault {
    /// How to come by a file that is read.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            TorchFault::Legacy => {
                "save it again with a later torch: \
                 `torch.save(torch.load(\"old.pth\", weights_only=True), \"new.pth\")`"
            }
            TorchFault::PlainPickle
            | TorchFault::Global(_)
            | TorchFault::Opcode { .. }
            | TorchFault::NoStateDict(_)
            | TorchFault::TooLarge { .. }
            | TorchFault::NotTensor { .. } => {
                "save the weights alone, in the program that wrote it: \
                 `torch.save(model.state_dict(), \"weights.pth\")`"
            }
            TorchFault::Archive(_)
            | TorchFault::Storage { .. }
            | TorchFault::Truncated(_)
            | TorchFault::Broken { .. }
            | TorchFault::BeyondStorage { .. }
            | TorchFault::Claims { .. } => "it was cut short or edited: copy it again from where it comes from",
        }
    }
}
