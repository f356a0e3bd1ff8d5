//! Measures of circuits and edits, computed from numbers alone: nothing here knows a model.
//!
//! | module | question |
//! |---|---|
//! | [`token`] | how probable is a target, and is the new one more probable than the true one? |
//! | [`editing`] | did an edit succeed, does it hold in other words, what else changed? |
//! | [`text`] | how varied is generated text, and is it like what the edit makes true? |
//! | [`bootstrap`] | how uncertain is a mean, or any statistic, over requests, pairs or tasks? |
//! | [`paired`] | do two conditions differ on the same items? |
//! | [`two_way`] | does a difference hold for other requests and other tasks? |
//! | [`rank`] | do two measurements put items in the same order? |
//! | [`classify`] | does a circuit classify like its model? |
//! | [`overlap`] | do two masks share more than chance gives them? |
//! | [`hypergeometric`] | how many elements do random subsets share? |
//!
//! Conventions that hold everywhere:
//!
//! * Random numbers come from a [`Stream`], a seed and a stream number; equal streams give equal draws on every platform.
//! * Tests are two-sided, and p-values from random draws are `(b + 1) / (m + 1)`, which is never 0.
//! * Rows that belong together (all tasks of one request) are drawn and flipped together: see
//!   [`bootstrap::cluster_bootstrap`] and [`paired::sign_flip_clustered`].
//! * A measure that is not defined on its input is `None`, never NaN. Only a statistic that the caller passes in can be.
//!
//! # Example
//! Is an edit stronger in condition A than in B, over four requests measured on two tasks each?
//! ```
//! use locus_metrics::{Stream, bootstrap, paired};
//!
//! let request = [1, 1, 2, 2, 3, 3, 4, 4];
//! let a_minus_b = [0.9, 1.1, 0.4, 0.6, 1.3, 1.2, 0.2, 0.1];
//!
//! let stream = Stream::named(7, "A against B");
//! let effect = bootstrap::cluster_bootstrap_mean(&a_minus_b, &request, bootstrap::RESAMPLES, stream);
//! let test = paired::sign_flip_clustered(&a_minus_b, &request, stream);
//!
//! assert!((effect.value - 0.725).abs() < 1e-12 && effect.low > 0.0);
//! assert_eq!(test.n, 4); // four requests, not eight rows
//! assert_eq!(test.p_value, 2.0 / 16.0); // exact: the smallest p that four flips can give
//! ```
#![deny(missing_docs)]

pub mod bootstrap;
pub mod classify;
pub mod editing;
pub mod hypergeometric;
pub mod overlap;
pub mod paired;
pub mod rank;
mod stream;
pub mod text;
pub mod token;
pub mod two_way;

pub use bootstrap::Interval;
pub use stream::Stream;

/// The README, whose examples are tests too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
