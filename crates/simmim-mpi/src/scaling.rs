//! How long a step takes on many machines.
