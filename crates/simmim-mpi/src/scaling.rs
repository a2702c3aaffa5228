//! How long a step takes on many machines: a simulation of what ranks compute and send, and the memory that they need.
//!
//! A step computes the images of a rank's share, forward and then backward. Backward completes gradients in buckets, and
//! each is summed over the ranks: one after the other, either while the rank waits for it, or while it computes on. Then
//! the optimizer makes its step. A machine's ranks share its link to the others. Ranks wait for the slowest of them.

use simmim_engine::Sharding;

/// What a rank computes in a step.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Parameters of the model.
    pub parameters: u64,
    /// Images of a step on all ranks together.
    pub batch: u64,
    /// Seconds of forward and backward per image on one rank.
    pub image_s: f64,
    /// Seconds of the optimizer's step on one rank, with all that does not depend on the number of images.
    pub optimizer_s: f64,
    /// Standard deviation of the time of a rank's share, as a part of it.
    pub jitter: f64,
    /// Bytes of a gradient on the wire: 4 for f32, 2 for bf16.
    pub wire_bytes: u64,
    /// Least number of gradients that are sent together.
    pub bucket: u64,
}

/// The machines.
#[derive(Clone, Copy, Debug)]
pub struct Cluster {
    /// Number of machines.
    pub machines: u64,
    /// Ranks on each.
    pub ranks_per_machine: u64,
    /// Bytes per second between two ranks of a machine, each way and for each rank.
    pub inner_bytes_per_s: f64,
    /// Bytes per second of a machine's link, each way, for all of its ranks together.
    pub link_bytes_per_s: f64,
    /// Seconds until a message arrives.
    pub latency_s: f64,
    /// Whether gradients are sent while others are computed.
    pub overlaps: bool,
}

impl Cluster {
    /// Number of ranks.
    pub fn ranks(&self) -> u64 {
        self.machines * self.ranks_per_machine
    }
}

/// The times of a step in seconds.
#[derive(Clone, Copy, Debug)]
pub struct StepTime {
    /// What a rank computes.
    pub compute_s: f64,
    /// What ranks wait for the slowest of them.
    pub straggling_s: f64,
    /// What they wait for the network.
    pub communication_s: f64,
}

impl StepTime {
    /// The whole step.
    pub fn total_s(&self) -> f64 {
        self.compute_s + self.straggling_s + self.communication_s
    }
}

/// Share of the time of forward and backward that is forward; a product has two in backward.
const FORWARD_SHARE: f64 = 1.0 / 3.0;

/// Simulates a step.
pub fn simulate(work: &Work, cluster: &Cluster) -> StepTime {
    let ranks = cluster.ranks();
    let images_s = work.image_s * work.batch as f64 / ranks as f64;
    // of n times with a normal distribution, the greatest is about so many deviations above the mean
    let straggling_s = if ranks == 1 { 0.0 } else { images_s * work.jitter * (2.0 * (ranks as f64).ln()).sqrt() };
    let buckets = work.parameters.div_ceil(work.bucket).max(1);
    let bucket_s = all_reduce_s(work.parameters * work.wire_bytes / buckets, cluster);
    let (forward_s, backward_s) = (images_s * FORWARD_SHARE, images_s * (1.0 - FORWARD_SHARE));
    let (mut computed, mut network_free) = (forward_s, 0.0f64);
    for _ in 0..buckets {
        computed += backward_s / buckets as f64;
        network_free = network_free.max(computed) + bucket_s;
        if !cluster.overlaps {
            computed = network_free;
        }
    }
    let end = network_free.max(computed);
    StepTime { compute_s: images_s + work.optimizer_s, straggling_s, communication_s: end - images_s }
}

/// Seconds of a sum of so many bytes over all ranks: every rank sends 1/n of it to every other one, twice.
pub fn all_reduce_s(bytes: u64, cluster: &Cluster) -> f64 {
    let (ranks, inner) = (cluster.ranks() as f64, cluster.ranks_per_machine as f64);
    if cluster.ranks() == 1 {
        return 0.0;
    }
    let slice = bytes as f64 / ranks;
    let within_s = slice * (inner - 1.0) / cluster.inner_bytes_per_s;
    let across_s = slice * (ranks - inner) * inner / cluster.link_bytes_per_s;
    2.0 * (within_s.max(across_s) + cluster.latency_s)
}

/// Bytes that a rank needs for parameters, gradients and moments in f32, and with `has_average` for that of the weights.
pub fn model_bytes(parameters: u64, ranks: u64, sharding: Sharding, has_average: bool) -> u64 {
    let share = parameters.div_ceil(ranks);
    let (gradients, states) = match sharding {
        Sharding::None => (parameters, parameters),
        Sharding::Optimizer => (parameters, share),
        Sharding::Gradients => (share, share),
    };
    4 * (parameters + gradients + (2 + u64::from(has_average)) * states)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: Work = Work {
        parameters: 1_000_000,
        batch: 64,
        image_s: 0.01,
        optimizer_s: 0.02,
        jitter: 0.0,
        wire_bytes: 4,
        bucket: 250_000,
    };

    const CLUSTER: Cluster = Cluster {
        machines: 4,
        ranks_per_machine: 1,
        inner_bytes_per_s: 1e9,
        link_bytes_per_s: 1e8,
        latency_s: 0.0,
        overlaps: false,
    };

    #[track_caller]
    fn check(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9 * expected.abs().max(1e-3), "{found}, expected {expected}");
    }

    #[test]
    fn one_rank_only_computes() {
        let step = simmim_step(&Cluster { machines: 1, ..CLUSTER });
        check(step.total_s(), 64.0 * 0.01 + 0.02);
    }

    fn simmim_step(cluster: &Cluster) -> StepTime {
        simulate(&WORK, cluster)
    }

    #[test]
    fn without_overlap_the_network_adds_the_time_of_its_bytes() {
        // 2·(4 − 1)/4 of 4 MB at 100 MB/s
        let step = simmim_step(&CLUSTER);
        check(step.communication_s, 0.06);
        check(step.compute_s, 16.0 * 0.01 + 0.02);
    }

    #[test]
    fn with_overlap_only_the_last_bucket_is_waited_for_where_the_network_is_fast_enough() {
        // backward takes 107 ms for four buckets of 15 ms
        let step = simmim_step(&Cluster { overlaps: true, ..CLUSTER });
        check(step.communication_s, 0.015);
        // ten times slower: the first bucket is there after a quarter of backward, and then the network is never free
        let slow = Cluster { overlaps: true, link_bytes_per_s: 1e7, ..CLUSTER };
        check(simmim_step(&slow).communication_s, 0.6 - 0.75 * 0.16 * 2.0 / 3.0);
    }

    #[test]
    fn ranks_of_a_machine_share_its_link() {
        // two machines of two ranks: each rank sends 2/4 of 4 MB across, twice, and both of a machine through one link
        check(all_reduce_s(4_000_000, &Cluster { machines: 2, ranks_per_machine: 2, ..CLUSTER }), 0.08);
        // within one machine, each rank sends at its own speed
        check(all_reduce_s(4_000_000, &Cluster { machines: 1, ranks_per_machine: 4, ..CLUSTER }), 0.006);
    }

    /// The plan of `docs/CLUSTERS.md`: SwinV2-G, 3 billion parameters.
    #[test]
    fn three_billion_parameters_take_the_memory_that_the_plan_says() {
        let gb = |ranks, sharding| (model_bytes(3_000_000_000, ranks, sharding, false) as f64 / 1e8).round() / 10.0;
        assert_eq!(gb(1, Sharding::None), 48.0); // values, gradients and two moments of 4 bytes each
        assert_eq!(gb(64, Sharding::None), 48.0);
        assert_eq!(gb(64, Sharding::Optimizer), 24.4);
        assert_eq!(gb(64, Sharding::Gradients), 12.6);
    }

    /// Forward and backward of SwinV2-G take three times the 742.3 GFLOP that `simmim inspect` counts for an image, at the rate
    /// at which SwinV2-T (7.142 GFLOP) computes 8 images in 0.641 s on two Zen 4 cores in bf16 (docs/LOG.md), for each of 64
    /// cores. AdamW reads and writes 28 bytes for a parameter, at 200 GB/s.
    #[test]
    fn many_machines_scale_as_the_plan_says() {
        let core_gflops = 8.0 * 3.0 * 7.142 / 0.641 / 2.0;
        let work = Work {
            parameters: 3_000_000_000,
            batch: 2048,
            image_s: 3.0 * 742.3 / (64.0 * core_gflops),
            optimizer_s: 28.0 * 3e9 / 200e9,
            jitter: 0.02,
            wire_bytes: 4,
            bucket: 4 << 20,
        };
        for (machines, gbit_per_s, overlaps, seconds, percent) in PLAN {
            let cluster = Cluster {
                machines,
                ranks_per_machine: 1,
                inner_bytes_per_s: f64::INFINITY,
                link_bytes_per_s: gbit_per_s * 1e9 / 8.0,
                latency_s: 1e-5,
                overlaps,
            };
            let total_s = simulate(&work, &cluster).total_s();
            let alone_s = work.image_s * work.batch as f64 + work.optimizer_s;
            let efficiency = 100.0 * alone_s / (total_s * machines as f64);
            let found = ((10.0 * total_s).round() / 10.0, efficiency.round());
            assert_eq!(found, (seconds, percent), "{machines} machines, {gbit_per_s} Gbit/s, {overlaps}");
        }
    }

    /// Ranks of one thread on two Zen 5 cores, ViT-S at batch 64 (docs/LOG.md). What ranks compute was measured as two runs at once
    /// that exchange nothing, 2.458 s for 32 images each and 1.242 s for 16. What they exchange was measured with few small images,
    /// where a step takes 43 ms more than such runs on two ranks, and 89 ms on four, which share the cores.
    #[test]
    fn ranks_of_one_machine_take_what_was_measured() {
        let image_s = (2.458 - 1.242) / 16.0;
        let alone = Work {
            parameters: 21_895_088,
            batch: 64,
            image_s,
            optimizer_s: 1.242 - 16.0 * image_s,
            jitter: 0.0,
            wire_bytes: 4,
            bucket: 4 << 20,
        };
        let gradients = 4.0 * alone.parameters as f64;
        for (ranks, sums_s, on_a_core, measured_s) in
            [(1, f64::NAN, 1.0, 4.844), (2, 0.043, 1.0, 2.516), (4, 0.089, 2.0, 2.646)]
        {
            let work = Work { image_s: on_a_core * alone.image_s, optimizer_s: on_a_core * alone.optimizer_s, ..alone };
            let cluster = Cluster {
                machines: 1,
                ranks_per_machine: ranks,
                inner_bytes_per_s: 2.0 * (ranks as f64 - 1.0) / ranks as f64 * gradients / sums_s,
                ..CLUSTER
            };
            let ratio = simulate(&work, &cluster).total_s() / measured_s;
            assert!((0.97..1.03).contains(&ratio), "{ranks} ranks: {ratio} of what was measured");
        }
    }

    /// The table of `docs/CLUSTERS.md`: machines, Gbit/s of their links, whether sending overlaps with backward, seconds of a
    /// step, and percent of perfect scaling.
    const PLAN: [(u64, f64, bool, f64, f64); 12] = [
        (16, 10.0, false, 53.3, 63.0),
        (16, 100.0, false, 37.1, 90.0),
        (16, 100.0, true, 35.3, 94.0),
        (64, 10.0, false, 28.1, 30.0),
        (64, 100.0, false, 11.1, 75.0),
        (64, 100.0, true, 9.2, 90.0),
        (256, 10.0, false, 21.8, 10.0),
        (256, 100.0, false, 4.6, 46.0),
        (256, 100.0, true, 3.2, 65.0),
        (1024, 10.0, false, 20.2, 3.0),
        (1024, 100.0, false, 2.9, 18.0),
        (1024, 100.0, true, 2.6, 20.0),
    ];
}
