//! What training on top of the model needs: losses with gradients, the score head, the optimiser.

pub(crate) mod loss;
pub(crate) mod optim;
pub(crate) mod score_head;
