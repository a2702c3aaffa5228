//! The attention half of a block, one image at a time; head by head and window by window inside.

use super::frame::{Frame, FrameKept, FrameKeptPart, FrameSpec, FrameSums};
use super::heads::{Gather, HeadRows, expand_bias, reduce_bias};
use super::{add_bias_gradient, add_gradient, add_weight_gradient, project, project_back};
use crate::backend::{AttentionBranch, QkvBias, Similarity};
use crate::cpu::buffers::Buffer;
use crate::cpu::kept::{Kept, KeptPart, KeptView};
use crate::cpu::store::Store;
use crate::cpu::tape::{Backward, Gradients, NodeId};
use crate::cpu::threads::split_mut;
use crate::cpu::{Cpu, CpuTensor};
use simmim_kernels::attention::{HeadShape, attend, attend_backward};
use simmim_kernels::elementwise::{add_column_sums, add_scaled};
use simmim_kernels::matmul::Scratch;
use std::rc::Rc;

struct Attention {
    branch: AttentionBranch,
    input: NodeId,
    keep: Vec<f32>,
    x: Rc<Buffer<f32>>,
    bias_table: Option<CpuTensor>,
    frame: FrameKept,
    sizes: Sizes,
    /// Input of the joint projection, `[B, N, D]`.
    a: Kept,
    /// Its output with bias, `[B, N, 3D]`.
    qkv: Kept,
    /// Attention weights, `[B, windows, A, M, M]`.
    p: Kept,
    /// Input of the output projection, `[B, N, D]`.
    o: Kept,
}

#[derive(Clone, Copy)]
struct Sizes {
    images: usize,
    tokens: usize,
    width: usize,
    heads: usize,
    windows: usize,
    window_tokens: usize,
}

impl Sizes {
    fn image_len(&self) -> usize {
        self.tokens * self.width
    }

    fn scores_len(&self) -> usize {
        self.window_tokens * self.window_tokens
    }

    /// Attention weights of one image.
    fn p_len(&self) -> usize {
        self.windows * self.heads * self.scores_len()
    }

    fn head(&self) -> HeadShape {
        HeadShape { tokens: self.window_tokens, width: self.width / self.heads }
    }

    /// Where the attention weights of a head of a window start within an image's.
    fn p_start(&self, window: usize, head: usize) -> usize {
        (window * self.heads + head) * self.scores_len()
    }
}

/// Parameter values that both directions read.
struct Weights<'a> {
    frame: Frame<'a>,
    /// Bias of the joint projection, zeros where the layer has none, `[3D]`.
    qkv_bias: Vec<f32>,
    projection_bias: Option<&'a [f32]>,
    /// Position bias of each head, `[A, M, M]`; empty without a table.
    position_bias: Vec<f32>,
    logit_scale: Option<&'a [f32]>,
}

impl<'a> Weights<'a> {
    fn read(cpu: &Cpu, store: &'a Store, branch: &AttentionBranch, table: Option<&CpuTensor>, keep: &'a [f32]) -> Self {
        let width = cpu.table.get(branch.norm.weight).range.len();
        let zeros = || vec![0.0; width];
        Self {
            frame: frame_spec(branch).frame(store, keep, cpu.operands()),
            qkv_bias: match branch.qkv_bias {
                QkvBias::None => vec![0.0; 3 * width],
                QkvBias::Full(id) => store.value(id).to_vec(),
                QkvBias::QueryValue { query, value } => [store.value(query), &zeros(), store.value(value)].concat(),
            },
            projection_bias: branch.projection.bias.map(|b| store.value(b)),
            position_bias: table.map_or_else(Vec::new, |t| expand_bias(&t.data, &branch.bias_index, branch.heads)),
            logit_scale: match branch.similarity {
                Similarity::ScaledDot => None,
                Similarity::Cosine { logit_scale } => Some(store.value(logit_scale)),
            },
        }
    }

    fn gather<'b>(&'b self, branch: &'b AttentionBranch, sizes: &Sizes) -> Gather<'b> {
        Gather {
            width: sizes.width,
            head_width: sizes.width / sizes.heads,
            tokens: sizes.tokens,
            slots: &branch.windows.slots,
            window_tokens: sizes.window_tokens,
            padding: &self.qkv_bias,
            logit_scale: self.logit_scale,
        }
    }

    /// What is added to the scores of a head in a window.
    fn biases<'b>(&'b self, branch: &'b AttentionBranch, sizes: &Sizes, window: usize, head: usize) -> Vec<&'b [f32]> {
        let position = self.position_bias.chunks_exact(sizes.scores_len()).nth(head);
        let mask = branch.windows.mask_of[window].map(|m| branch.windows.masks[m as usize].as_slice());
        position.into_iter().chain(mask).collect()
    }
}

fn frame_spec(branch: &AttentionBranch) -> FrameSpec {
    FrameSpec { norm: branch.norm, order: branch.order, layer_scale: branch.layer_scale }
}

/// What one group of images keeps.
struct Part<'a> {
    frame: FrameKeptPart<'a>,
    a: KeptPart<'a>,
    qkv: KeptPart<'a>,
    p: KeptPart<'a>,
    o: KeptPart<'a>,
}

pub(in crate::cpu) fn forward(
    cpu: &Cpu,
    x: &CpuTensor,
    branch: &AttentionBranch,
    bias_table: Option<&CpuTensor>,
    keep: Option<&[f32]>,
) -> CpuTensor {
    let (images, tokens, width) = x.tokens_shape();
    assert_eq!(width % branch.heads, 0, "{} heads do not divide width {width}", branch.heads);
    let windows = &branch.windows;
    let sizes =
        Sizes { images, tokens, width, heads: branch.heads, windows: windows.count(), window_tokens: windows.tokens };
    let keep = keep.map_or_else(|| vec![1.0; images], <[f32]>::to_vec);
    let (image_len, operands, tile) = (sizes.image_len(), cpu.operands(), cpu.tile);

    let mut out = cpu.shelves.f32.take(x.data.len());
    let mut kept_frame = frame_spec(branch).keep(cpu, images * tokens);
    let room = |len: usize| Kept::new(&cpu.shelves, cpu.precision, images * len);
    let (mut kept_a, mut kept_qkv, mut kept_o) = (room(image_len), room(3 * image_len), room(image_len));
    let mut kept_p = room(sizes.p_len());
    let packed = (cpu.forward_weight(branch.qkv), cpu.forward_weight(branch.projection.weight));
    {
        let (w_qkv, w_projection): (&[f32], &[f32]) = (&packed.0, &packed.1);
        let store = cpu.store.borrow();
        let weights = Weights::read(cpu, &store, branch, bias_table, &keep);
        let data: &[f32] = &x.data;
        let groups = cpu.threads.groups(images);
        let parts = kept_frame
            .split(&groups, tokens, width)
            .into_iter()
            .zip(kept_a.split(&groups, image_len))
            .zip(kept_qkv.split(&groups, 3 * image_len))
            .zip(kept_p.split(&groups, sizes.p_len()))
            .zip(kept_o.split(&groups, image_len))
            .map(|((((frame, a), qkv), p), o)| Part { frame, a, qkv, p, o });
        let tasks = groups.iter().zip(split_mut(&mut out, &groups, image_len)).zip(parts).collect();
        let lookup = Lookup::new(branch, &weights, &sizes);
        cpu.threads.map(tasks, |((group, out), mut part)| {
            let [mut a, mut o, mut f, mut scratch] = [(); 4].map(|_| vec![0.0; image_len]);
            let mut qkv = vec![0.0; 3 * image_len];
            let mut rows = HeadRows::new(sizes.head());
            let mut products = Scratch::default();
            let mut p = vec![0.0; sizes.scores_len()];
            for (i, image) in group.clone().enumerate() {
                let x = &data[image * image_len..][..image_len];
                let a = part.a.fill(i * image_len, &mut a, |a| weights.frame.enter(x, i, &mut part.frame, a)); // [N, D]
                let qkv = part.qkv.fill(i * 3 * image_len, &mut qkv, |qkv| {
                    project(tile, a, w_qkv, Some(&weights.qkv_bias), tokens, qkv); // [N, 3D]
                });
                let o = part.o.fill(i * image_len, &mut o, |o| {
                    for (window, head, biases) in lookup.iter() {
                        lookup.gather.load(qkv, window, head, operands, &mut rows);
                        let HeadRows { q, k, v, o: head_o } = &mut rows;
                        part.p.fill(i * sizes.p_len() + sizes.p_start(window, head), &mut p, |p| {
                            attend(sizes.head(), operands, q, k, v, biases, p, head_o, &mut products);
                        });
                        lookup.gather.store_output(head_o, window, head, o);
                    }
                    operands.round(o);
                });
                project(tile, o, w_projection, weights.projection_bias, tokens, &mut f); // [N, D]
                let out = &mut out[i * image_len..][..image_len];
                weights.frame.leave(x, &mut f, &mut scratch, i, image, &mut part.frame, out);
            }
        });
    }
    cpu.output(&x.shape, out, || Attention {
        branch: branch.clone(),
        input: x.node,
        keep,
        x: Rc::clone(&x.data),
        bias_table: bias_table.cloned(),
        frame: kept_frame,
        sizes,
        a: kept_a,
        qkv: kept_qkv,
        p: kept_p,
        o: kept_o,
    })
}

/// Every (window, head) pair with what is added to its scores, and where its rows lie.
struct Lookup<'a> {
    gather: Gather<'a>,
    pairs: Vec<(usize, usize, Vec<&'a [f32]>)>,
}

impl<'a> Lookup<'a> {
    fn new(branch: &'a AttentionBranch, weights: &'a Weights, sizes: &Sizes) -> Self {
        let pairs = (0..sizes.windows).flat_map(|w| (0..sizes.heads).map(move |h| (w, h)));
        Self {
            gather: weights.gather(branch, sizes),
            pairs: pairs.map(|(w, h)| (w, h, weights.biases(branch, sizes, w, h))).collect(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (usize, usize, &[&'a [f32]])> {
        self.pairs.iter().map(|(window, head, biases)| (*window, *head, biases.as_slice()))
    }
}

/// One worker's gradients of parameters.
struct Sums {
    frame: FrameSums,
    /// From padding tokens, whose projection is the bias alone, `[3D]`.
    d_padding: Vec<f32>,
    /// `[A, M, M]`
    d_position_bias: Vec<f32>,
    /// `[A]`
    d_logit_scale: Vec<f32>,
}

impl Backward for Attention {
    fn backward(self: Box<Self>, cpu: &Cpu, mut d_output: Buffer<f32>, gradients: &mut Gradients) {
        let mut d_f = cpu.shelves.f32.take(self.x.len()); // [B, N, D]
        let mut d_qkv = cpu.shelves.f32.zeros(3 * self.x.len()); // [B, N, 3D]
        let sums = self.input_gradients(cpu, &mut d_output, &mut d_f, &mut d_qkv);

        let Self { branch, input, bias_table, sizes, a, o, .. } = *self;
        let mut d_position_bias = vec![0.0; sizes.heads * sizes.scores_len()];
        let mut d_qkv_bias = vec![0.0; 3 * sizes.width];
        add_column_sums(&d_qkv, &mut d_qkv_bias);
        for sums in &sums {
            frame_spec(&branch).add_gradients(cpu, &sums.frame);
            add_scaled(&mut d_qkv_bias, 1.0, &sums.d_padding);
            add_scaled(&mut d_position_bias, 1.0, &sums.d_position_bias);
            if let Similarity::Cosine { logit_scale } = branch.similarity {
                add_gradient(cpu, logit_scale, &sums.d_logit_scale);
            }
        }
        match branch.qkv_bias {
            QkvBias::None => {}
            QkvBias::Full(id) => add_gradient(cpu, id, &d_qkv_bias),
            QkvBias::QueryValue { query, value } => {
                add_gradient(cpu, query, &d_qkv_bias[..sizes.width]);
                add_gradient(cpu, value, &d_qkv_bias[2 * sizes.width..]);
            }
        }
        if let Some(table) = bias_table {
            let mut d_table = cpu.shelves.f32.zeros(table.data.len());
            reduce_bias(&d_position_bias, &branch.bias_index, sizes.heads, &mut d_table);
            gradients.add(table.node, d_table);
        }
        let rows = sizes.images * sizes.tokens;
        add_bias_gradient(cpu, &branch.projection, &d_f);
        add_weight_gradient(cpu, branch.projection.weight, &d_f, &o.into_f32(&cpu.shelves), rows);
        add_weight_gradient(cpu, branch.qkv, &d_qkv, &a.into_f32(&cpu.shelves), rows);
        gradients.add(input, d_output);
    }
}

impl Attention {
    /// Turns `d_x` from the gradient of the output into that of the input, and fills the gradients of
    /// both projections' outputs for the weight gradients.
    fn input_gradients(&self, cpu: &Cpu, d_x: &mut [f32], d_f: &mut [f32], d_qkv: &mut [f32]) -> Vec<Sums> {
        let (branch, sizes, operands, tile) = (&self.branch, self.sizes, cpu.operands(), cpu.tile);
        let packed = (cpu.backward_weight(branch.qkv), cpu.backward_weight(branch.projection.weight));
        let (w_qkv, w_projection): (&[f32], &[f32]) = (&packed.0, &packed.1);
        let image_len = sizes.image_len();
        let store = cpu.store.borrow();
        let weights = Weights::read(cpu, &store, branch, self.bias_table.as_ref(), &self.keep);
        let has_position_bias = self.bias_table.is_some();
        let (x, kept): (&[f32], _) = (&self.x, self.frame.view());
        let (qkv, p): (KeptView, KeptView) = (self.qkv.view(), self.p.view());
        let lookup = Lookup::new(branch, &weights, &sizes);
        let groups = cpu.threads.groups(sizes.images);
        let tasks = groups
            .iter()
            .zip(split_mut(d_x, &groups, image_len))
            .zip(split_mut(d_f, &groups, image_len))
            .zip(split_mut(d_qkv, &groups, 3 * image_len))
            .collect();
        cpu.threads.map(tasks, |(((group, d_x), d_f), d_qkv)| {
            let mut sums = Sums {
                frame: weights.frame.sums(),
                d_padding: vec![0.0; 3 * sizes.width],
                d_position_bias: vec![0.0; sizes.heads * sizes.scores_len()],
                d_logit_scale: vec![0.0; sizes.heads],
            };
            let [mut d_a, mut d_o, mut scratch] = [(); 3].map(|_| vec![0.0; image_len]);
            let mut qkv_scratch = vec![0.0; 3 * image_len];
            let mut products = Scratch::default();
            let [mut rows, mut d_rows] = [(); 2].map(|_| HeadRows::new(sizes.head()));
            let [mut p_scratch, mut d_s] = [(); 2].map(|_| vec![0.0; sizes.scores_len()]);
            for (i, image) in group.clone().enumerate() {
                let d_x = &mut d_x[i * image_len..][..image_len];
                let d_f = &mut d_f[i * image_len..][..image_len];
                let d_qkv = &mut d_qkv[i * 3 * image_len..][..3 * image_len];
                weights.frame.leave_backward(d_x, image, kept, &mut sums.frame, d_f, &mut scratch);
                operands.round(d_f);
                project_back(tile, d_f, w_projection, sizes.tokens, &mut d_o);
                operands.round(&mut d_o);
                let image_qkv = qkv.read(image * 3 * image_len, &mut qkv_scratch);
                for (window, head, _) in lookup.iter() {
                    lookup.gather.load(image_qkv, window, head, operands, &mut rows);
                    lookup.gather.load_output(&d_o, window, head, &mut rows.o);
                    let head_p = p.read(image * sizes.p_len() + sizes.p_start(window, head), &mut p_scratch);
                    attend_backward(
                        sizes.head(),
                        operands,
                        &rows.q,
                        &rows.k,
                        &rows.v,
                        head_p,
                        &rows.o,
                        &mut d_rows.q,
                        &mut d_rows.k,
                        &mut d_rows.v,
                        &mut d_s,
                        &mut products,
                    );
                    if has_position_bias {
                        let span = head * sizes.scores_len()..(head + 1) * sizes.scores_len();
                        add_scaled(&mut sums.d_position_bias[span], 1.0, &d_s);
                    }
                    let d_logit = &mut sums.d_logit_scale[head];
                    lookup.gather.store_gradients(
                        image_qkv,
                        &mut d_rows,
                        window,
                        head,
                        d_qkv,
                        &mut sums.d_padding,
                        d_logit,
                    );
                }
                operands.round(d_qkv);
                project_back(tile, d_qkv, w_qkv, sizes.tokens, &mut d_a);
                let x = &x[image * image_len..][..image_len];
                weights.frame.enter_backward(x, &d_a, image, kept, &mut sums.frame, d_x);
            }
            sums
        })
    }
}
