//! Parameters: names, initialization, weights files, and transfer from another model.

mod file;
mod init;
mod load;
mod transfer;

pub use file::{RECIPE_KEY, WeightsFile, save, save_atomically, save_slots, save_values_atomically};
pub use init::{Builder, Init, initial_values, initialize};
pub use load::{InitFrom, LoadedWeights};
pub use transfer::{Pretrained, Transfer, transfer};
