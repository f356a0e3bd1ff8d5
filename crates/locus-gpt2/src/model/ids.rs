//! Names of the parameters, as Hugging Face checkpoints have them.

use std::fmt;

use crate::config::Config;

/// A tensor of one block, in the order of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlockParam {
    /// `ln_1.weight [d]`
    Ln1Weight,
    /// `ln_1.bias [d]`
    Ln1Bias,
    /// `attn.c_attn.weight [d, 3d]`, columns q, k, v
    AttnInWeight,
    /// `attn.c_attn.bias [3d]`
    AttnInBias,
    /// `attn.c_proj.weight [d, d]`
    AttnOutWeight,
    /// `attn.c_proj.bias [d]`
    AttnOutBias,
    /// `ln_2.weight [d]`
    Ln2Weight,
    /// `ln_2.bias [d]`
    Ln2Bias,
    /// `mlp.c_fc.weight [d, f]`
    MlpInWeight,
    /// `mlp.c_fc.bias [f]`
    MlpInBias,
    /// `mlp.c_proj.weight [f, d]`
    MlpOutWeight,
    /// `mlp.c_proj.bias [d]`
    MlpOutBias,
}

impl BlockParam {
    /// All twelve, in order.
    pub const ALL: [BlockParam; 12] = [
        BlockParam::Ln1Weight,
        BlockParam::Ln1Bias,
        BlockParam::AttnInWeight,
        BlockParam::AttnInBias,
        BlockParam::AttnOutWeight,
        BlockParam::AttnOutBias,
        BlockParam::Ln2Weight,
        BlockParam::Ln2Bias,
        BlockParam::MlpInWeight,
        BlockParam::MlpInBias,
        BlockParam::MlpOutWeight,
        BlockParam::MlpOutBias,
    ];

    /// Name within the block, as in Hugging Face checkpoints.
    pub fn name(self) -> &'static str {
        match self {
            BlockParam::Ln1Weight => "ln_1.weight",
            BlockParam::Ln1Bias => "ln_1.bias",
            BlockParam::AttnInWeight => "attn.c_attn.weight",
            BlockParam::AttnInBias => "attn.c_attn.bias",
            BlockParam::AttnOutWeight => "attn.c_proj.weight",
            BlockParam::AttnOutBias => "attn.c_proj.bias",
            BlockParam::Ln2Weight => "ln_2.weight",
            BlockParam::Ln2Bias => "ln_2.bias",
            BlockParam::MlpInWeight => "mlp.c_fc.weight",
            BlockParam::MlpInBias => "mlp.c_fc.bias",
            BlockParam::MlpOutWeight => "mlp.c_proj.weight",
            BlockParam::MlpOutBias => "mlp.c_proj.bias",
        }
    }
}

/// A parameter tensor of the model. The order is the order of the forward pass and of every file written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ParamId {
    /// Token embedding and tied head, `wte.weight [V, d]`.
    TokenEmbedding,
    /// Position embedding, `wpe.weight [n_positions, d]`.
    PositionEmbedding,
    /// A tensor of block `0..L`.
    Block(usize, BlockParam),
    /// `ln_f.weight [d]`
    FinalNormWeight,
    /// `ln_f.bias [d]`
    FinalNormBias,
}

impl ParamId {
    /// Every parameter of a model, in order.
    pub fn all(config: &Config) -> impl Iterator<Item = ParamId> + use<> {
        [ParamId::TokenEmbedding, ParamId::PositionEmbedding]
            .into_iter()
            .chain(ParamId::maskable(config))
            .chain([ParamId::FinalNormWeight, ParamId::FinalNormBias])
    }

    /// Every block parameter: what a circuit can contain (arXiv 2406.17241, section 3: embeddings and the final
    /// LayerNorm are never masked).
    pub fn maskable(config: &Config) -> impl Iterator<Item = ParamId> + use<> {
        (0..config.n_layer).flat_map(|layer| BlockParam::ALL.map(|param| ParamId::Block(layer, param)))
    }

    /// Shape `[rows, columns]`; vectors have one row.
    pub fn shape(self, config: &Config) -> (usize, usize) {
        let (d, f) = (config.n_embd, config.d_mlp());
        match self {
            ParamId::TokenEmbedding => (config.vocab_size, d),
            ParamId::PositionEmbedding => (config.n_positions, d),
            ParamId::Block(_, param) => match param {
                BlockParam::AttnInWeight => (d, 3 * d),
                BlockParam::AttnInBias => (1, 3 * d),
                BlockParam::AttnOutWeight => (d, d),
                BlockParam::MlpInWeight => (d, f),
                BlockParam::MlpInBias => (1, f),
                BlockParam::MlpOutWeight => (f, d),
                _ => (1, d),
            },
            ParamId::FinalNormWeight | ParamId::FinalNormBias => (1, d),
        }
    }

    /// Number of scalars.
    pub fn len(self, config: &Config) -> usize {
        let (rows, columns) = self.shape(config);
        rows * columns
    }

    /// Whether files store the tensor with one axis.
    pub fn is_vector(self) -> bool {
        match self {
            ParamId::TokenEmbedding | ParamId::PositionEmbedding => false,
            ParamId::Block(_, param) => param.name().ends_with("bias") || param.name().starts_with("ln_"),
            ParamId::FinalNormWeight | ParamId::FinalNormBias => true,
        }
    }

    /// Place among [`ParamId::all`]; `None` for a block that a model of `n_layer` layers does not have.
    pub(crate) fn index(self, n_layer: usize) -> Option<usize> {
        match self {
            ParamId::TokenEmbedding => Some(0),
            ParamId::PositionEmbedding => Some(1),
            ParamId::Block(layer, param) => {
                (layer < n_layer).then_some(2 + layer * BlockParam::ALL.len() + param as usize)
            }
            ParamId::FinalNormWeight => Some(2 + n_layer * BlockParam::ALL.len()),
            ParamId::FinalNormBias => Some(3 + n_layer * BlockParam::ALL.len()),
        }
    }
}

/// The Hugging Face name without the `transformer.` prefix: `h.0.ln_1.weight`.
impl fmt::Display for ParamId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParamId::TokenEmbedding => out.write_str("wte.weight"),
            ParamId::PositionEmbedding => out.write_str("wpe.weight"),
            ParamId::Block(layer, param) => write!(out, "h.{layer}.{}", param.name()),
            ParamId::FinalNormWeight => out.write_str("ln_f.weight"),
            ParamId::FinalNormBias => out.write_str("ln_f.bias"),
        }
    }
}
