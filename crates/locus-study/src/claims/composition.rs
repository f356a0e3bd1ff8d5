//! The claim about composition, C5: circuits keep more of the LayerNorm parameters than of attention or MLP.

use super::claim::{Evidence, PublishedClaim, p, percent, signed};
use crate::{
    records::{Extraction, Records},
    tables::{
        TableOptions,
        composition::{Composition, ModuleKind, TensorPart, circuits},
        select::{Density, mean},
    },
};

pub(super) const C5: PublishedClaim = PublishedClaim {
    id: "C5",
    claim: "Up to 60 % of the LayerNorm parameters are in a circuit, more than of attention or MLP.",
    statistic: "Share kept of the LayerNorm parameters minus the larger of the shares kept of attention and \
                MLP, paired over tasks, at 5 % and 50 %; interval and sign-flip test over tasks. The claim \
                holds above zero; the largest share kept of the LayerNorms is reported beside the published \
                60 %, which depends on the size and decides nothing.",
    unit: "share of the parameters of a module",
    claimed: (0.0, f64::INFINITY),
    needs: "T6",
    evidence: mostly_layer_norm,
};

/// Shares kept in one circuit.
struct SharesKept<'a> {
    task: &'a str,
    size: Density,
    layer_norm: f64,
    attention: f64,
    mlp: f64,
}

fn mostly_layer_norm(records: &Records, preset: &str, options: &TableOptions) -> Option<Evidence> {
    let of_size =
        |size| circuits(records, preset, size).into_iter().filter_map(move |circuit| kept(circuit, size));
    let kept: Vec<SharesKept> = Density::MAIN.into_iter().flat_map(of_size).collect();
    let differences: Vec<f64> = kept.iter().map(|k| k.layer_norm - k.attention.max(k.mlp)).collect();
    let tasks: Vec<&str> = kept.iter().map(|k| k.task).collect();
    let evidence = Evidence::of_differences(&differences, &tasks, options, &format!("C5/{preset}"))?;
    let most = kept.iter().max_by(|a, b| a.layer_norm.total_cmp(&b.layer_norm))?;
    let by_size: Vec<String> = Density::MAIN.into_iter().filter_map(|size| describe(&kept, size)).collect();
    let reading = format!(
        "Share kept of LayerNorm, attention and MLP, {}. Most of the LayerNorms: {} ({} at {}); published: \
         up to 60 %. Difference {} (p {}).",
        by_size.join("; "),
        percent(most.layer_norm),
        most.task,
        most.size.label(),
        signed(&evidence.effect),
        p(evidence.p_value),
    );
    Some(evidence.reading(reading))
}

fn kept(circuit: &Extraction, size: Density) -> Option<SharesKept<'_>> {
    let composition = Composition::new(circuit, None);
    let share_kept = |kind| composition.density(kind, TensorPart::All);
    Some(SharesKept {
        task: &circuit.task,
        size,
        layer_norm: share_kept(ModuleKind::LayerNorm)?,
        attention: share_kept(ModuleKind::Attention)?,
        mlp: share_kept(ModuleKind::Mlp)?,
    })
}

fn describe(kept: &[SharesKept], size: Density) -> Option<String> {
    let over =
        |share: fn(&SharesKept) -> f64| mean(kept.iter().filter(|k| k.size == size).map(share)).map(percent);
    Some(format!(
        "at {}: {}, {} and {}",
        size.label(),
        over(|k| k.layer_norm)?,
        over(|k| k.attention)?,
        over(|k| k.mlp)?,
    ))
}
