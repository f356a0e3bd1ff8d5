//! The recipe that determines the organism.

use locus_gpt2::Config;
use serde::Serialize;

/// Sizes and constants of the organism; the default is the committed one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recipe {
    /// Seed of corpus, weights and batches.
    pub seed: u64,
    /// Number of training documents.
    pub n_documents: usize,
    /// Size of the vocabulary, `<|endoftext|>` included.
    pub vocab_size: usize,
    /// Number of layers.
    pub n_layer: usize,
    /// Number of attention heads per layer.
    pub n_head: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Length of the context, in tokens.
    pub n_positions: usize,
    /// Number of optimiser steps.
    pub steps: usize,
    /// Tokens per step; a step ends with the document that reaches this number.
    pub tokens_per_step: usize,
    /// Highest learning rate of the one-cycle schedule.
    pub lr: f64,
    /// Weight decay of AdamW.
    pub weight_decay: f64,
    /// Largest norm of the gradient of a step; a longer one is scaled down to it.
    pub clip: f64,
}

impl Default for Recipe {
    fn default() -> Self {
        Recipe {
            seed: 20_240_617,
            n_documents: 60_000,
            vocab_size: 2048,
            n_layer: 4,
            n_head: 4,
            n_embd: 64,
            n_positions: 128,
            steps: 2400,
            tokens_per_step: 3072,
            lr: 4e-3,
            weight_decay: 0.01,
            clip: 1.0,
        }
    }
}

impl Recipe {
    /// The model's configuration.
    pub fn config(&self) -> Config {
        Config::new(self.n_layer, self.n_head, self.n_embd, self.n_positions, self.vocab_size)
    }
}
