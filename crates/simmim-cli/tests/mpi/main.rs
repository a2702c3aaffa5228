//! Runs of several processes, started by `mpirun` as users start them. Only with the feature `mpi`; wants Open MPI.

#![allow(clippy::unwrap_used, reason = "a test says where it fails")]

mod faults;
mod same_training;
mod shares;
mod support;
