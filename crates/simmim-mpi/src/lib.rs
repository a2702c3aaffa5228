//! Ranks of a training as processes of an MPI job, on one machine or on many.
//!
//! With the feature `mpi`, `MpiRanks` is a [`Collective`](simmim_engine::Collective). Its sums are taken in the order of
//! ranks whatever the library does, so they have the bits of [`InProcess`](simmim_engine::InProcess). What needs no
//! library is here without the feature: how long ranks wait for each other ([`watch`]), how values are divided
//! ([`slices`]), and how long steps take on many machines ([`scaling`]).

#![forbid(unsafe_code)]

pub mod scaling;
pub mod slices;
pub mod watch;

#[cfg(feature = "mpi")]
mod beside;
#[cfg(feature = "mpi")]
mod exchange;
#[cfg(feature = "mpi")]
mod failure;
#[cfg(feature = "mpi")]
mod header;
#[cfg(feature = "mpi")]
mod outbox;
#[cfg(feature = "mpi")]
mod protocol;
#[cfg(feature = "mpi")]
mod ranks;
#[cfg(feature = "mpi")]
mod timeline;
#[cfg(feature = "mpi")]
mod watching;

#[cfg(feature = "mpi")]
pub use ranks::{Config, MpiRanks, OpenError, Traffic};
#[cfg(feature = "mpi")]
pub use timeline::OnLine;
