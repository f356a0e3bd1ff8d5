//! Forward and backward passes of several requests at once, each with its own change of the same weights.
//!
//! Products with the shared weights are computed once for the rows of all requests, on a model without biases and with
//! LayerNorm gains of 1. A [`Hook`] then applies to each request's rows that request's gains and biases, and adds the
//! products with its changes of the matrices.
//!
//! Dimensions: `t` rows of all requests, `d` width, `V` vocabulary.

use std::collections::BTreeMap;

use locus_gpt2::internal::{add_column_sums, split_rows, split_rows_view};
use locus_gpt2::{
    BlockParam, Gpt2, Hook, HookPoint, ParamId, ParamMask, ParamSet, PromptTargets, Scalar, Tape, TensorMask,
    axpy, unique_inverse,
};
use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use rayon::prelude::*;

use super::matrix::{Descent, Editable, Input, MatrixChange};
use super::tokens::TokenChange;

/// The weights, mask and constants that all requests share.
pub(super) struct SharedStart<'a, F> {
    /// The weights that every edit starts from.
    pub start: &'a Gpt2<F>,
    /// The weights with biases of 0 and LayerNorm gains of 1, on which the shared passes run.
    pub plain: Gpt2<F>,
    pub descent: Descent<F>,
    /// Which entries of each matrix may move, layer by layer in the order of [`MATRICES`].
    pub editable: Vec<Editable<'a>>,
    /// Each parameter's part of the mask; entries inside it may move.
    masked: BTreeMap<ParamId, &'a TensorMask>,
}

/// Matrices of a block with their biases, and the hook points of their inputs and outputs.
const MATRICES: [(BlockParam, BlockParam, HookPoint, HookPoint); 4] = [
    (BlockParam::AttnInWeight, BlockParam::AttnInBias, HookPoint::Ln1, HookPoint::Qkv),
    (BlockParam::AttnOutWeight, BlockParam::AttnOutBias, HookPoint::Z, HookPoint::AttnOut),
    (BlockParam::MlpInWeight, BlockParam::MlpInBias, HookPoint::Ln2, HookPoint::MlpPre),
    (BlockParam::MlpOutWeight, BlockParam::MlpOutBias, HookPoint::MlpPost, HookPoint::MlpOut),
];

/// Gain and bias of the LayerNorm whose output is at a hook point, and its index among those of all blocks.
fn norm_at(layer: usize, point: HookPoint) -> Option<(ParamId, ParamId, usize)> {
    let id = |param| ParamId::Block(layer, param);
    match point {
        HookPoint::Ln1 => Some((id(BlockParam::Ln1Weight), id(BlockParam::Ln1Bias), 2 * layer)),
        HookPoint::Ln2 => Some((id(BlockParam::Ln2Weight), id(BlockParam::Ln2Bias), 2 * layer + 1)),
        _ => None,
    }
}

/// One request's change of the whole model.
#[derive(Clone, Debug)]
pub(super) struct Change<F> {
    /// Changes of biases and LayerNorm gains.
    pub vectors: ParamSet<F>,
    /// Changes of the blocks' matrices, in the order of [`SharedStart::editable`].
    pub matrices: Vec<MatrixChange<F>>,
    pub tokens: TokenChange<F>,
    /// Change of the embeddings of the positions that the request's `n` tokens take, `[n, d]`.
    pub positions: Array2<F>,
}

impl<F: Scalar> Change<F> {
    /// Bytes of what is held entry by entry of the blocks' matrices.
    pub fn bytes(&self) -> usize {
        self.matrices.iter().map(MatrixChange::bytes).sum()
    }
}

impl<'a, F: Scalar> SharedStart<'a, F> {
    pub fn new(start: &'a Gpt2<F>, mask: Option<&'a ParamMask>, descent: Descent<F>) -> Self {
        let config = start.config();
        let mut plain = start.clone();
        for id in ParamId::all(config).filter(|id| id.is_vector()) {
            let gain = matches!(
                id,
                ParamId::FinalNormWeight | ParamId::Block(_, BlockParam::Ln1Weight | BlockParam::Ln2Weight)
            );
            let value = if gain { F::one() } else { F::zero() };
            plain.insert(id, vec![value; id.len(config)]);
        }
        let masked: BTreeMap<ParamId, &TensorMask> = mask.into_iter().flat_map(ParamMask::tensors).collect();
        let editable = matrices(config.n_layer)
            .into_par_iter()
            .map(|id| Editable::new(masked.get(&id).copied(), id.shape(config)))
            .collect();
        SharedStart { start, plain, descent, editable, masked }
    }

    /// Bytes by which a request's factors of the blocks' matrices grow with each row of a step.
    pub fn bytes_of_step(&self) -> usize {
        let config = self.start.config();
        let matrices = matrices(config.n_layer).into_iter().zip(&self.editable);
        let factored = matrices.filter(|(_, editable)| matches!(editable, Editable::AllBut(..)));
        let scalars: usize = factored.map(|(id, _)| id.shape(config).0 + id.shape(config).1).sum();
        scalars * size_of::<F>()
    }

    /// A change of zero for a request whose tokens are `read`.
    pub fn unchanged(&self, read: &[u32]) -> Change<F> {
        let config = self.start.config();
        let matrices = matrices(config.n_layer).into_iter().zip(&self.editable);
        Change {
            vectors: ParamSet::zeros(config, ParamId::all(config).filter(|id| id.is_vector())),
            matrices: matrices.map(|(id, editable)| MatrixChange::none(editable, id.shape(config))).collect(),
            tokens: TokenChange::none(read, ParamId::TokenEmbedding.shape(config)),
            positions: Array2::zeros((read.len(), config.n_embd)),
        }
    }

    /// The start with a request's change added to it.
    pub fn apply(&self, change: &Change<F>) -> Gpt2<F> {
        let mut edited = self.start.clone();
        for id in change.vectors.ids() {
            axpy(F::one(), change.vectors.get(id), edited.get_mut(id));
        }
        let matrices = matrices(self.start.config().n_layer).into_iter().zip(&self.editable);
        for ((id, editable), matrix_of) in matrices.zip(&change.matrices) {
            matrix_of.apply(editable, self.descent.lr, edited.get_mut(id));
        }
        let table = edited.matrix_mut(ParamId::TokenEmbedding);
        change.tokens.apply(self.descent.lr, table);
        let positions = edited.get_mut(ParamId::PositionEmbedding);
        let change = change.positions.as_slice().expect("is contiguous");
        axpy(F::one(), change, &mut positions[..change.len()]);
        edited
    }

    /// Runs packed sequences: each `(change, n)` of `changes`, in order, applies to the next `n` of them, which share no
    /// rows with others.
    pub fn forward(&self, packed: &PromptTargets<F>, changes: &[(&Change<F>, usize)]) -> Forward<F> {
        let reads: Vec<usize> = packed.targets.iter().map(|target| target.row).collect();
        let (reads, places) = unique_inverse(&reads);
        let members = self.members(packed, &reads, changes);
        let positions = packed.batch.positions();
        let mut x = self.plain.embed(&packed.batch);
        let mut starts = packed.batch.sequences();
        for &(change, sequences) in changes {
            for rows in starts.by_ref().take(sequences) {
                for row in rows {
                    let position = positions[row];
                    let mut x = x.row_mut(row);
                    let x = x.as_slice_mut().expect("rows are contiguous");
                    change.tokens.add_to_embedded(self.descent.lr, packed.batch.tokens()[row], x);
                    if position < change.positions.nrows() {
                        let change = change.positions.row(position);
                        axpy(F::one(), change.to_slice().expect("rows are contiguous"), x);
                    }
                }
            }
        }
        let mut hook = ForwardHook { shared: self, members };
        let tape =
            self.plain.run(&packed.batch).from_layer(0, x).reading(&reads).with_hooks(&mut hook).tape();
        let kept: Vec<MemberStates<F>> = hook.members.into_iter().map(|member| member.kept).collect();
        let mut hidden = tape.hidden.clone();
        let mut logits = Array2::zeros((0, 0));
        let counts = || kept.iter().map(|kept| kept.read);
        let scale = |((change, _), hidden): (&(&Change<F>, usize), ArrayViewMut2<F>)| {
            self.scale(change, (ParamId::FinalNormWeight, ParamId::FinalNormBias), hidden);
        };
        changes.iter().zip(split_rows(hidden.view_mut(), counts())).for_each(scale);
        if !packed.targets.is_empty() {
            logits = self.plain.logits(hidden.view());
        }
        let member_of = changes.par_iter().zip(split_rows_view(hidden.view(), counts()));
        member_of.zip(split_rows(logits.view_mut(), counts())).for_each(|(((change, _), hidden), logits)| {
            change.tokens.add_to_logits(self.descent.lr, hidden, logits);
        });
        Forward { tape, kept, hidden, logits, places }
    }

    /// Backward pass from the gradients of the logits, `[reads, V]`, to those of the embedded rows, `[t, d]`, which it
    /// returns. On the way every part of the changes makes its step, except token and position embeddings.
    pub fn backward(
        &self,
        forward: Forward<F>,
        d_logits: ArrayView2<F>,
        changes: &mut [&mut Change<F>],
    ) -> Array2<F> {
        let Forward { tape, kept, .. } = forward;
        let counts: Vec<usize> = kept.iter().map(|kept| kept.read).collect();
        let mut d_hidden = self.plain.logits_backward(
            tape.hidden.view(),
            d_logits,
            &mut ParamSet::zeros(self.start.config(), []),
        );
        let member_of = changes.par_iter_mut().zip(split_rows(d_hidden.view_mut(), counts.iter().copied()));
        let given = split_rows_view(tape.hidden.view(), counts.iter().copied());
        let d_logits = split_rows_view(d_logits, counts.iter().copied());
        member_of.zip(given).zip(d_logits).for_each(|(((change, mut d), xhat), d_logits)| {
            change.tokens.add_to_hidden(self.descent.lr, d_logits, d.view_mut());
            self.step_norm(change, (ParamId::FinalNormWeight, ParamId::FinalNormBias), xhat, d);
        });
        let members = changes.iter_mut().zip(kept).map(|(change, kept)| Learner { change, kept, d_y: None });
        let mut hook = BackwardHook { shared: self, members: members.collect() };
        let mut none = ParamSet::zeros(self.start.config(), []);
        self.plain.backward(&tape, d_hidden.view(), &mut none, &mut hook)
    }

    fn members<'m>(
        &self,
        packed: &PromptTargets<F>,
        reads: &[usize],
        changes: &[(&'m Change<F>, usize)],
    ) -> Vec<Member<'m, F>> {
        let (mut rows, mut first) = (packed.batch.sequences(), 0);
        let read_before = |row: usize| reads.partition_point(|&read| read < row);
        let layers = self.start.config().n_layer;
        changes
            .iter()
            .map(|&(change, sequences)| {
                let all: usize = rows.by_ref().take(sequences).map(|rows| rows.len()).sum();
                let read = read_before(first + all) - read_before(first);
                first += all;
                let kept = MemberStates {
                    all,
                    read,
                    normed: Vec::with_capacity(2 * layers),
                    inputs: Vec::with_capacity(4 * layers),
                };
                Member { change, kept }
            })
            .collect()
    }

    /// Applies a LayerNorm's gain and bias, as one request has edited them, to normalised rows `[rows, d]`.
    fn scale(&self, change: &Change<F>, (gain, bias): (ParamId, ParamId), mut x: ArrayViewMut2<F>) {
        let edited = |id| {
            let start_of = self.start.get(id).iter();
            start_of.zip(change.vectors.get(id)).map(|(&w, &c)| w + c).collect::<Vec<F>>()
        };
        let (gain, bias) = (edited(gain), edited(bias));
        for mut row in x.rows_mut() {
            let row = row.as_slice_mut().expect("rows are contiguous");
            for ((x, &gain), &bias) in row.iter_mut().zip(&gain).zip(&bias) {
                *x = *x * gain + bias;
            }
        }
    }

    /// Turns the gradient `d` of a LayerNorm's output into that of its normalised rows `xhat` (both `[rows, d]`), and
    /// makes a step of gain and bias.
    fn step_norm(
        &self,
        change: &mut Change<F>,
        (gain, bias): (ParamId, ParamId),
        xhat: ArrayView2<F>,
        mut d: ArrayViewMut2<F>,
    ) {
        let mut d_gain = vec![F::zero(); d.ncols()];
        for (d, xhat) in d.rows().into_iter().zip(xhat.rows()) {
            let (d, xhat) = (d.to_slice(), xhat.to_slice());
            let (d, xhat) = (d.expect("rows are contiguous"), xhat.expect("rows are contiguous"));
            d_gain.iter_mut().zip(d).zip(xhat).for_each(|((sum, &d), &xhat)| *sum += d * xhat);
        }
        let mut d_bias = vec![F::zero(); d.ncols()];
        add_column_sums(d.view(), &mut d_bias);
        let edited: Vec<F> =
            self.start.get(gain).iter().zip(change.vectors.get(gain)).map(|(&w, &c)| w + c).collect();
        for mut row in d.rows_mut() {
            let row = row.as_slice_mut().expect("rows are contiguous");
            row.iter_mut().zip(&edited).for_each(|(d, &gain)| *d *= gain);
        }
        self.step_vector(change, gain, &d_gain);
        self.step_vector(change, bias, &d_bias);
    }

    fn step_vector(&self, change: &mut Change<F>, id: ParamId, gradient: &[F]) {
        let change = change.vectors.get_mut(id);
        match self.masked.get(&id) {
            None => change.iter_mut().zip(gradient).for_each(|(c, &g)| *c = self.descent.moved(*c, g)),
            Some(inside) => {
                inside.indices().for_each(|i| change[i] = self.descent.moved(change[i], gradient[i]));
            }
        }
    }
}

/// The matrices of all blocks, layer by layer in the order of [`MATRICES`].
fn matrices(n_layer: usize) -> Vec<ParamId> {
    let layer_of = |layer| MATRICES.iter().map(move |matrix| ParamId::Block(layer, matrix.0));
    (0..n_layer).flat_map(layer_of).collect()
}

/// Result of a forward pass, with what the backward pass needs.
pub(super) struct Forward<F> {
    tape: Tape<F>,
    kept: Vec<MemberStates<F>>,
    /// Hidden states of the rows that predict a target, after the final LayerNorm, `[reads, d]`.
    pub hidden: Array2<F>,
    /// Logits of the rows that predict a target, `[reads, V]`.
    pub logits: Array2<F>,
    /// Row of `logits` that predicts each target.
    pub places: Vec<usize>,
}

/// What the backward pass needs of the rows of one request.
struct MemberStates<F> {
    /// Number of rows.
    all: usize,
    /// Number of rows that predict a target.
    read: usize,
    /// Normalised rows of each LayerNorm of the blocks, before gain and bias.
    normed: Vec<Array2<F>>,
    /// Input of each matrix of the blocks.
    inputs: Vec<Input<F>>,
}

impl<F: Scalar> SharedStart<'_, F> {
    /// Whether the states at this point have only the rows that are read.
    fn reduced(&self, layer: usize, point: HookPoint) -> bool {
        layer + 1 == self.start.config().n_layer && point >= HookPoint::Z
    }
}

impl<F> MemberStates<F> {
    fn rows(&self, reduced: bool) -> usize {
        if reduced { self.read } else { self.all }
    }
}

/// A request in the forward pass.
struct Member<'a, F> {
    change: &'a Change<F>,
    kept: MemberStates<F>,
}

/// Adds what the shared model leaves out to the rows of each request. At the input of a matrix: gain and bias of the
/// LayerNorm before it, if there is one; the result is kept for the backward pass. At the output of a matrix: its bias,
/// and the product of the kept input with the request's change of the matrix.
struct ForwardHook<'s, 'a, F> {
    shared: &'s SharedStart<'s, F>,
    members: Vec<Member<'a, F>>,
}

impl<F: Scalar> Hook<F> for ForwardHook<'_, '_, F> {
    fn call(&mut self, layer: usize, point: HookPoint, state: ArrayViewMut2<F>) {
        let shared = self.shared;
        let reduced = shared.reduced(layer, point);
        let Some(place) = MATRICES.iter().position(|matrix| matrix.2 == point || matrix.3 == point) else {
            return;
        };
        let index = MATRICES.len() * layer + place;
        let states = split_rows(state, self.members.iter().map(|member| member.kept.rows(reduced)));
        self.members.par_iter_mut().zip(states).for_each(|(member, mut state)| {
            let Member { change, kept } = member;
            if let Some((gain, bias, _)) = norm_at(layer, point) {
                kept.normed.push(state.to_owned());
                shared.scale(change, (gain, bias), state.view_mut());
            }
            if MATRICES[place].2 == point {
                kept.inputs.push(Input::new(state.view(), &shared.editable[index]));
                return;
            }
            let bias = ParamId::Block(layer, MATRICES[place].1);
            for mut row in state.rows_mut() {
                let row = row.as_slice_mut().expect("rows are contiguous");
                axpy(F::one(), shared.start.get(bias), row);
                axpy(F::one(), change.vectors.get(bias), row);
            }
            change.matrices[index].add_to(
                &shared.editable[index],
                shared.descent.lr,
                &kept.inputs[index],
                state,
            );
        });
    }
}

/// A request in the backward pass.
struct Learner<'a, F> {
    change: &'a mut Change<F>,
    kept: MemberStates<F>,
    /// Gradient of the output of the matrix whose input comes next.
    d_y: Option<Array2<F>>,
}

/// The reverse of [`ForwardHook`] on the rows of each request, with a step of descent for all that the pass goes
/// through. A backward pass reaches the output of a matrix before its input: at the output the bias makes its step and
/// the gradient is kept; at the input the gradient through the change of the matrix is added, then the change makes its
/// step, and so do gain and bias of the LayerNorm before it.
struct BackwardHook<'s, 'a, F> {
    shared: &'s SharedStart<'s, F>,
    members: Vec<Learner<'a, F>>,
}

impl<F: Scalar> Hook<F> for BackwardHook<'_, '_, F> {
    fn call(&mut self, layer: usize, point: HookPoint, state: ArrayViewMut2<F>) {
        let shared = self.shared;
        let reduced = shared.reduced(layer, point);
        let Some(place) = MATRICES.iter().position(|matrix| matrix.2 == point || matrix.3 == point) else {
            return;
        };
        let index = MATRICES.len() * layer + place;
        let states = split_rows(state, self.members.iter().map(|member| member.kept.rows(reduced)));
        self.members.par_iter_mut().zip(states).for_each(|(member, mut state)| {
            let Learner { change, kept, d_y } = member;
            if MATRICES[place].3 == point {
                let mut d_bias = vec![F::zero(); state.ncols()];
                add_column_sums(state.view(), &mut d_bias);
                shared.step_vector(change, ParamId::Block(layer, MATRICES[place].1), &d_bias);
                *d_y = Some(state.to_owned());
                return;
            }
            let d_y = d_y.take().expect("an output comes before its input");
            let input = &kept.inputs[index];
            change.matrices[index].step(
                &shared.editable[index],
                shared.descent,
                input,
                d_y.view(),
                state.view_mut(),
            );
            if let Some((gain, bias, norm)) = norm_at(layer, point) {
                shared.step_norm(change, (gain, bias), kept.normed[norm].view(), state);
            }
        });
    }
}
