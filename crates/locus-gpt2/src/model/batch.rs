//! Packed ragged batches: a row for each token, sequence after sequence, without padding and attention mask.

use std::collections::HashMap;
use std::ops::Range;

use ndarray::ArrayView2;

use super::kv_cache::KvCache;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kernels::number::Number;

/// Sequences of token ids laid end to end. Row `i` of every activation belongs to token `i`.
///
/// The tokens before a sequence's rows may be in a [`KvCache`] ([`Batch::after`]), or in rows of another sequence that
/// begins alike ([`Batch::prefix_sharing`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Batch<F> {
    rows: Rows,
    /// Keys and values of the tokens before each sequence's rows, when those are not rows of the batch.
    prefix: Option<KvCache<F>>,
}

/// Which token stands in which row.
#[derive(Clone, Debug, PartialEq)]
struct Rows {
    tokens: Vec<u32>,
    /// Start of each sequence, and the number of rows at the end.
    offsets: Vec<usize>,
    /// Position of each sequence's first row: the number of its tokens that have no rows of their own.
    starts: Vec<usize>,
    /// Rows of earlier sequences in which those tokens stand, sequence by sequence; empty when they are in no row.
    shared: Vec<usize>,
}

impl Rows {
    fn empty() -> Self {
        Rows { tokens: Vec::new(), offsets: vec![0], starts: Vec::new(), shared: Vec::new() }
    }

    /// A row for each token of each sequence, behind `starts[i]` tokens that have none.
    fn packed(config: &Config, starts: Vec<usize>, sequences: &[&[u32]]) -> Result<Self> {
        let mut rows = Rows::empty();
        for (i, (sequence, &start)) in sequences.iter().zip(&starts).enumerate() {
            check(config, i, start, sequence)?;
            rows.tokens.extend_from_slice(sequence);
            rows.offsets.push(rows.tokens.len());
        }
        Ok(Rows { starts, ..rows })
    }

    /// A row for each token that does not come after the same tokens as in an earlier sequence.
    fn prefix_sharing(config: &Config, sequences: &[&[u32]]) -> Result<Self> {
        let mut rows = Rows::empty();
        // A trie of rows: the row of a token that follows the one of another row, or that begins a sequence.
        let mut next: HashMap<(Option<usize>, u32), usize> = HashMap::new();
        for (i, sequence) in sequences.iter().enumerate() {
            check(config, i, 0, sequence)?;
            let (mut last, mut start) = (None, 0);
            for &token in *sequence {
                let new = rows.tokens.len();
                let row = *next.entry((last, token)).or_insert(new);
                if row == new {
                    rows.tokens.push(token);
                } else {
                    rows.shared.push(row);
                    start += 1;
                }
                last = Some(row);
            }
            rows.starts.push(start);
            rows.offsets.push(rows.tokens.len());
        }
        Ok(rows)
    }

    fn sequences(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.offsets.windows(2).map(|pair| pair[0]..pair[1])
    }

    fn of_sequences(&self) -> Vec<Vec<usize>> {
        let mut rest = self.shared.as_slice();
        let rows = |(unshared, &start): (Range<usize>, &usize)| {
            let (shared, tail) = rest.split_at(start.min(rest.len()));
            rest = tail;
            shared.iter().copied().chain(unshared).collect()
        };
        self.sequences().zip(&self.starts).map(rows).collect()
    }
}

fn slices<S: AsRef<[u32]>>(sequences: &[S]) -> Vec<&[u32]> {
    sequences.iter().map(AsRef::as_ref).collect()
}

impl<F: Number> Batch<F> {
    /// Packs sequences in the order given.
    ///
    /// # Errors
    /// When a sequence is empty, longer than the model's context or has a token outside its vocabulary.
    pub fn new<S: AsRef<[u32]>>(config: &Config, sequences: &[S]) -> Result<Self> {
        let rows = Rows::packed(config, vec![0; sequences.len()], &slices(sequences))?;
        Ok(Batch { rows, prefix: None })
    }

    /// Packs suffixes, one for each beginning in a KV cache. Gradients do not flow into the cache.
    ///
    /// # Errors
    /// When a suffix is empty, has an unknown token or does not fit the context behind its beginning.
    ///
    /// # Panics
    /// When there are not as many suffixes as beginnings, or the cache belongs to a model of other layers or width.
    pub fn after<S: AsRef<[u32]>>(config: &Config, prefix: KvCache<F>, suffixes: &[S]) -> Result<Self> {
        assert_eq!(suffixes.len(), prefix.lengths().len(), "one suffix for each beginning");
        prefix.assert_fits(config);
        let rows = Rows::packed(config, prefix.lengths().to_vec(), &slices(suffixes))?;
        let prefix = rows.starts.iter().any(|&start| start > 0).then_some(prefix);
        Ok(Batch { rows, prefix })
    }

    /// Packs sequences so that what they share is computed once: a token that comes after the same tokens as in an
    /// earlier sequence has its row there, since nothing after it bears on it.
    ///
    /// # Errors
    /// As [`Batch::new`].
    pub fn prefix_sharing<S: AsRef<[u32]>>(config: &Config, sequences: &[S]) -> Result<Self> {
        Ok(Batch { rows: Rows::prefix_sharing(config, &slices(sequences))?, prefix: None })
    }

    /// Number of rows, over all sequences.
    pub fn n_rows(&self) -> usize {
        self.rows.tokens.len()
    }

    /// Number of sequences.
    pub fn n_sequences(&self) -> usize {
        self.rows.offsets.len() - 1
    }

    /// The token of every row.
    pub fn tokens(&self) -> &[u32] {
        &self.rows.tokens
    }

    /// Position of each sequence's first row.
    pub fn starts(&self) -> &[usize] {
        &self.rows.starts
    }

    /// Position of every row's token in its sequence.
    pub fn positions(&self) -> Vec<usize> {
        self.sequences().zip(self.starts()).flat_map(|(rows, &start)| (start..).take(rows.len())).collect()
    }

    /// Rows of earlier sequences that hold the tokens before each sequence's rows, sequence by sequence.
    pub(crate) fn shared(&self) -> &[usize] {
        &self.rows.shared
    }

    /// Keys and values of a layer of the tokens before each sequence's rows, packed `[rows, 2d]`; `None` when there are
    /// none or they are rows of the batch.
    pub(crate) fn prefix(&self, layer: usize) -> Option<ArrayView2<'_, F>> {
        self.prefix.as_ref().map(|prefix| prefix.layer(layer))
    }

    /// Checks that the KV cache, where there is one, belongs to a model of this many layers and this width.
    ///
    /// # Panics
    /// When it does not.
    pub(crate) fn assert_fits(&self, config: &Config) {
        self.prefix.iter().for_each(|prefix| prefix.assert_fits(config));
    }

    /// Rows that each sequence does not share with an earlier one, in order.
    pub fn sequences(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.rows.sequences()
    }

    /// Rows of each sequence's tokens that are in the batch: shared ones first, then those of its own.
    pub fn rows(&self) -> Vec<Vec<usize>> {
        self.rows.of_sequences()
    }

    /// Row of each sequence's last token, in ascending order unless sequences share rows.
    pub fn last_rows(&self) -> Vec<usize> {
        self.rows().iter().map(|rows| *rows.last().expect("no sequence is empty")).collect()
    }
}

/// Checks that the model can read a sequence behind `start` tokens.
fn check(config: &Config, i: usize, start: usize, sequence: &[u32]) -> Result<()> {
    if sequence.is_empty() {
        return Err(Error::Input(format!("sequence {i} has no tokens; expected at least one")));
    }
    if start + sequence.len() > config.n_positions {
        return Err(Error::Input(format!(
            "sequence {i} has {} tokens; the model takes at most {}",
            start + sequence.len(),
            config.n_positions
        )));
    }
    if let Some(token) = sequence.iter().find(|&&token| token as usize >= config.vocab_size) {
        return Err(Error::Input(format!(
            "sequence {i} has token {token}; the model's vocabulary has {}",
            config.vocab_size
        )));
    }
    Ok(())
}

/// The distinct values among some rows, ascending, and the index of each row among them.
pub fn unique_inverse(rows: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let mut unique = rows.to_vec();
    unique.sort_unstable();
    unique.dedup();
    let inverse = rows.iter().map(|row| unique.partition_point(|value| value < row)).collect();
    (unique, inverse)
}

/// Cuts a list of sequences into runs of at most `max_tokens` tokens (and at least one sequence).
///
/// The cuts depend on the lengths alone, so work that is done run by run and added up in order gives the same bits on
/// any number of threads.
pub fn chunk_by_tokens<S: AsRef<[u32]>>(sequences: &[S], max_tokens: usize) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (i, sequence) in sequences.iter().enumerate() {
        let length = sequence.as_ref().len();
        if i > start && tokens + length > max_tokens {
            runs.push(start..i);
            (start, tokens) = (i, 0);
        }
        tokens += length;
    }
    if start < sequences.len() {
        runs.push(start..sequences.len());
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_everything_in_order() {
        let sequences = [vec![0; 3], vec![0; 3], vec![0; 9], vec![0; 1], vec![0; 2]];
        assert_eq!(chunk_by_tokens(&sequences, 6), [0..2, 2..3, 3..5]);
        assert!(chunk_by_tokens(&sequences[..0], 6).is_empty());
    }

    /// A sequence that goes on after another, one that is the beginning of another, and one that is there twice.
    #[test]
    fn beginnings_are_shared() {
        let config = Config::new(1, 1, 4, 8, 9);
        let sequences = [vec![1, 2, 3], vec![1, 2, 4, 3], vec![2, 3], vec![1, 2], vec![2, 3]];
        let batch = Batch::<f32>::prefix_sharing(&config, &sequences).unwrap();
        assert_eq!(batch.tokens(), [1, 2, 3, 4, 3, 2, 3]);
        assert_eq!(batch.rows(), [vec![0, 1, 2], vec![0, 1, 3, 4], vec![5, 6], vec![0, 1], vec![5, 6]]);
        assert_eq!(batch.starts(), [0, 2, 0, 2, 2]);
        let last = batch.last_rows();
        assert_eq!(last, [2, 4, 6, 1, 6]);
        assert_eq!(unique_inverse(&last), (vec![1, 2, 4, 6], vec![1, 2, 3, 0, 3]));
    }
}
