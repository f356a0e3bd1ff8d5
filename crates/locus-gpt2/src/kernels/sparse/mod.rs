//! Work in proportion to the entries that count: products with matrices of few entries, and gradients at few entries.
//!
//! A `Pattern` says which entries count. Both kernels read transposed states, so that an entry is one number times a
//! vector of rows.

pub(crate) mod gradients;
pub(crate) mod pattern;
pub(crate) mod products;

pub(crate) use gradients::add_gradient_at;
pub(crate) use products::SparseMatrix;
