//! Beginnings of sequences, run once for all that may follow them.

use ndarray::ArrayViewMut2;

use super::batch::Batch;
use super::hooks::HookPoint;
use super::kv_cache::KvCache;
use super::weights::Gpt2;
use crate::error::Result;
use crate::scalar::{Scalar, compiled};

compiled!(
    KvCacheJob<'a>: <F> (&'a Gpt2<F>, &'a [&'a [u32]]) => Result<KvCache<F>>,
    |(model, beginnings)| kv_cache(model, beginnings)
);

fn kv_cache<F: Scalar>(model: &Gpt2<F>, beginnings: &[&[u32]]) -> Result<KvCache<F>> {
    let present: Vec<&[u32]> = beginnings.iter().copied().filter(|tokens| !tokens.is_empty()).collect();
    if present.is_empty() {
        return Ok(KvCache::empty(model.config(), beginnings.len()));
    }
    let batch = Batch::new(model.config(), &present)?;
    let mut qkv = Vec::with_capacity(model.config().n_layer);
    let mut keep = |_: usize, point: HookPoint, state: ArrayViewMut2<F>| {
        if point == HookPoint::Qkv {
            qkv.push(state.to_owned());
        }
    };
    // Of the last block only keys and values are wanted.
    model.run(&batch).reading(&[]).with_hooks(&mut keep).resid();
    let lengths: Vec<usize> = present.iter().map(|tokens| tokens.len()).collect();
    let all = beginnings.iter().map(|tokens| tokens.len()).collect();
    Ok(KvCache::prefixes(&qkv, &lengths, &lengths).with_lengths(all))
}

impl<F: Scalar> Gpt2<F> {
    /// Keys and values of the beginnings of some sequences, for passes over what follows them. A beginning may have no
    /// tokens.
    ///
    /// # Errors
    /// When a beginning does not fit the model.
    pub fn kv_cache<S: AsRef<[u32]>>(&self, beginnings: &[S]) -> Result<KvCache<F>> {
        let beginnings: Vec<&[u32]> = beginnings.iter().map(AsRef::as_ref).collect();
        F::run::<KvCacheJob>((self, &beginnings))
    }

    /// A batch of what follows the first `starts[i]` tokens of each sequence, which are run for their keys and values.
    ///
    /// # Errors
    /// When a sequence does not fit the model or nothing follows its beginning.
    ///
    /// # Panics
    /// When there are not as many starts as sequences or a start is beyond its sequence.
    pub fn suffixes<S: AsRef<[u32]>>(&self, sequences: &[S], starts: &[usize]) -> Result<Batch<F>> {
        assert_eq!(sequences.len(), starts.len(), "one start per sequence");
        let split = sequences.iter().zip(starts).map(|(tokens, &start)| tokens.as_ref().split_at(start));
        let (beginnings, suffixes): (Vec<&[u32]>, Vec<&[u32]>) = split.unzip();
        Batch::after(self.config(), self.kv_cache(&beginnings)?, &suffixes)
    }
}
