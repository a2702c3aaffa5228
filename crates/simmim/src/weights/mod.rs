//! Parameters: names, initialization, weights files, and transfer from another model.

mod adapt;
mod architecture;
mod channels;
mod conventions;
mod export;
mod file;
mod filled;
mod import;
mod init;
mod load;
mod preparation;
mod shards;
mod torch;
mod transfer;
mod values;

pub use adapt::{Adapted, adapt};
pub(crate) use architecture::{Architecture, ratio};
pub use channels::ChannelRule;
pub(crate) use channels::per_channel;
pub use conventions::NamedTensor;
pub use export::{Exported, Format, export};
pub use file::{RECIPE_KEY, WeightsFile, save, save_atomically, save_slots, save_values_atomically};
pub(crate) use filled::{fill, outline, sum};
pub use import::Import;
pub use init::{Builder, Init, initial_values, initialize};
pub use load::{InitFrom, LoadedWeights};
pub use torch::TorchFault;
pub use transfer::{Pretrained, Transfer, transfer};
pub(crate) use values::first_not_finite;
