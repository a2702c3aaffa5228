//! Summation of gradients over ranks, after the backward pass: through the memory of the host, in buckets of consecutive
//! parameters.

use crate::{Libtorch, shim};
use simmim_engine::{Collective, CollectiveError};
use tch::{Tensor, no_grad};

/// The least number of values in a bucket: few calls for small parameters, and little memory (PyTorch's
/// `DistributedDataParallel` takes 25 MB).
const BUCKET_LEN: usize = 4 << 20;

/// Replaces all gradients by their sums over ranks, and returns whether those of this rank were finite.
///
/// # Errors
/// If another rank is lost.
pub(crate) fn reduce(b: &Libtorch, collective: &mut dyn Collective) -> Result<bool, CollectiveError> {
    let store = b.state.store.borrow();
    let lens: Vec<usize> = store.lens().collect();
    let (mut start, mut is_finite) = (0, true);
    while start < lens.len() {
        let (mut end, mut len) = (start, 0);
        while end < lens.len() && len < BUCKET_LEN {
            len += lens[end];
            end += 1;
        }
        let gradients: Vec<Tensor> = (start..end).map(|id| store.gradient(id)).collect();
        let flat: Vec<Tensor> = gradients.iter().map(|gradient| gradient.reshape(-1)).collect();
        let mut values = b.download(&no_grad(|| Tensor::cat(&flat, 0)));
        is_finite &= values.iter().all(|value| value.is_finite());
        collective.all_reduce_sum(&mut values)?;
        let sums = b.upload(&[len as i64], &values);
        let mut offset = 0;
        for (id, gradient) in (start..end).zip(&gradients) {
            let sum = sums.narrow(0, offset, lens[id] as i64).view_as(gradient);
            shim::set_gradient(&store.leaves()[id], Some(&sum));
            offset += lens[id] as i64;
        }
        start = end;
    }
    Ok(is_finite)
}
