//! Work in proportion to the entries that count: products with matrices of few entries, and gradients at few entries.
//!
//! [`Pattern`] says which entries count; both kernels run over states that lie on their side, so that an entry is one
//! number against a vector of rows.

pub(crate) mod gradients;
pub(crate) mod pattern;
pub(crate) mod products;

pub(crate) use gradients::add_gradient_at;
pub(crate) use products::SparseMatrix;
