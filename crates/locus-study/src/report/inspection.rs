//! The page of `locus inspect`: one file that contains its style and drawings, has no scripts and loads nothing. With a
//! patch, everything stands twice: the model on the left, the patched model on the right.

use std::fmt::Write;

use serde::Serialize;

use super::plot::svg::{self, Anchor, Svg, escape, shortened, text_width};
use crate::protocol::{AttentionPattern, Candidate, ComponentKind, Inspection, Part};

const STYLE: &str = include_str!("inspection.css");

/// Tokens whose attention is drawn, counted from the end: maps of longer prompts could not be read.
const MAPPED: usize = 48;
/// Attention weights below this are not drawn.
const LEAST: f64 = 5e-4;
/// Characters of a token beside a map.
const LABEL: usize = 14;

/// Which model was looked at, for every file that is written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelProvenance {
    /// Version of the tool.
    pub version: &'static str,
    /// Name of the model or of its folder.
    pub model: String,
    /// SHA-256 of the weights, without patches.
    pub model_sha256: String,
    /// Number type of the computation.
    pub dtype: &'static str,
    /// Name and SHA-256 of each patch file, in the order applied.
    pub patches: Vec<(String, String)>,
}

/// A token of the prompt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InspectedToken {
    /// Token id.
    pub id: u32,
    /// Text, leading space included.
    pub text: String,
}

/// A prompt and what was found on it: the content of the page and of the JSON file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InspectedPrompt {
    /// What the numbers come from.
    pub provenance: ModelProvenance,
    /// The prompt as given.
    pub prompt: String,
    /// The prompt's tokens, `[n]`.
    pub tokens: Vec<InspectedToken>,
    /// The model.
    pub before: Inspection,
    /// The model with the patches applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Inspection>,
}

/// Name of a component for readers: a head is `LAYER.HEAD`.
pub(crate) fn component_name(part: &Part) -> String {
    let layer = part.layer.unwrap_or_default();
    match part.kind {
        ComponentKind::TokenEmbedding => "token embedding".into(),
        ComponentKind::PositionEmbedding => "position embedding".into(),
        ComponentKind::Head => format!("head {layer}.{}", part.head.unwrap_or_default()),
        ComponentKind::AttnBias => format!("attention bias {layer}"),
        ComponentKind::Mlp => format!("MLP {layer}"),
        ComponentKind::FinalNormBias => "final LayerNorm's bias".into(),
    }
}

/// The whole page.
pub fn inspection_page(inspected: &InspectedPrompt) -> String {
    let InspectedPrompt { provenance, prompt, tokens, before, .. } = inspected;
    let title = escape(&format!("{} on a prompt", provenance.model));
    let chips: String =
        tokens.iter().map(|token| format!("<span class=\"token\">{}</span>", shown(&token.text))).collect();
    let compared = match &before.against {
        Some(other) => {
            format!("the logit of {} minus that of {}", code(&before.target.text), code(&other.text))
        }
        None => format!("the logit of {} minus the mean logit of all tokens", code(&before.target.text)),
    };
    let sections = [
        section(inspected, "Continuations", "The likeliest next tokens.", &continuations),
        section(
            inspected,
            "Logit lens",
            &format!(
                "What the residual stream leaving each layer gives when it goes through the final LayerNorm and the \
                 unembedding at once: the likeliest token at each position, in a tint that grows with its probability, \
                 and, after the last token, probability and rank of {} and the difference: {compared}.",
                code(&before.target.text)
            ),
            &|side| lens(tokens, side),
        ),
        section(
            inspected,
            "Direct logit attribution",
            &format!("What each component adds to {compared}, with the deviation of the final LayerNorm as it is."),
            &attribution,
        ),
        section(
            inspected,
            "Attention",
            &format!(
                "Weights of each query (row) on the keys before it (column); the last {MAPPED} tokens at most."
            ),
            &|side| side.attention.iter().map(|pattern| attention(tokens, pattern)).collect(),
        ),
    ]
    .concat();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}{}</style>\n</head>\n\
         <body>\n<header>\n<h1>{title}</h1>\n<p class=\"prompt\">{}</p>\n<p class=\"tokens\">{chips}</p>\n</header>\n\
         <main>\n{sections}{}</main>\n</body>\n</html>\n",
        svg::STYLE,
        escape(prompt),
        origin(provenance),
    )
}

/// A part of the page, for one model or for both side by side.
fn section(
    inspected: &InspectedPrompt,
    title: &str,
    about: &str,
    content: &dyn Fn(&Inspection) -> String,
) -> String {
    let body = match &inspected.after {
        None => content(&inspected.before),
        Some(after) => format!(
            "<div class=\"pair\">\n<div><h3>Model</h3>\n{}</div>\n<div><h3>With the patch</h3>\n{}</div>\n</div>\n",
            content(&inspected.before),
            content(after)
        ),
    };
    format!("<section>\n<h2>{title}</h2>\n<p class=\"about\">{about}</p>\n{body}</section>\n")
}

fn origin(provenance: &ModelProvenance) -> String {
    let ModelProvenance { version, model, model_sha256, dtype, patches } = provenance;
    let patches: String = patches
        .iter()
        .map(|(name, sha256)| format!("<dt>patch {}</dt><dd>{}</dd>\n", escape(name), escape(sha256)))
        .collect();
    format!(
        "<section>\n<h2>Provenance</h2>\n<dl>\n<dt>locus</dt><dd>{}</dd>\n<dt>model</dt><dd>{}</dd>\n\
         <dt>SHA-256 of the weights</dt><dd>{}</dd>\n<dt>number type</dt><dd>{}</dd>\n{patches}</dl>\n</section>\n",
        escape(version),
        escape(model),
        escape(model_sha256),
        escape(dtype)
    )
}

/// A token's text with its spaces and line ends visible.
fn visible(text: &str) -> String {
    text.replace(' ', "\u{b7}").replace('\n', "\u{21b5}")
}

fn shown(text: &str) -> String {
    escape(&visible(text))
}

fn code(text: &str) -> String {
    format!("<code>{}</code>", shown(text))
}

/// A table that scrolls by itself when it is wider than the page.
fn table(head: &str, rows: &str) -> String {
    format!(
        "<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
    )
}

fn continuations(side: &Inspection) -> String {
    let row = |(i, candidate): (usize, &Candidate)| {
        let Candidate { id, text, logit, probability } = candidate;
        format!(
            "<tr><td class=\"n\">{}</td><td><code>{}</code></td><td class=\"n\">{id}</td><td class=\"n\">{logit:.4}</td>\
             <td class=\"n\">{probability:.4}</td><td class=\"bar\"><span style=\"width:{:.1}%\"></span></td></tr>\n",
            i + 1,
            shown(text),
            100.0 * probability
        )
    };
    let rows: String = side.next.iter().enumerate().map(row).collect();
    let numbers = "<th class=\"n\">id</th><th class=\"n\">logit</th><th class=\"n\">probability</th>";
    table(&format!("<th class=\"n\">rank</th><th>token</th>{numbers}<td class=\"bar\"></td>"), &rows)
}

fn lens(tokens: &[InspectedToken], side: &Inspection) -> String {
    let mut head = String::from("<th>layer</th>");
    for token in tokens {
        let _ = write!(head, "<th>{}</th>", shown(&token.text));
    }
    head += "<th class=\"n\">P(target)</th><th class=\"n\">rank</th><th class=\"n\">difference</th>";
    // The last layer, which is the model's answer, stands on top.
    let row = |lens: &crate::protocol::LensLayer| {
        let cell = |candidate: &Candidate| {
            tinted(candidate.probability, "heat", &shown(&candidate.text), || {
                format!("{}: {:.4}", visible(&candidate.text), candidate.probability)
            })
        };
        let cells: String = lens.likeliest.iter().map(cell).collect();
        format!(
            "<tr><th scope=\"row\">{}</th>{cells}<td class=\"n\">{:.4}</td><td class=\"n\">{}</td><td class=\"n\">{:+.4}</td></tr>\n",
            lens.layer, lens.probability, lens.rank, lens.logit_difference
        )
    };
    let rows: String = side.lens.iter().rev().map(row).collect();
    table(&head, &rows)
}

/// A cell with a tint of a strength in [0, 1].
fn tinted(strength: f64, class: &str, content: &str, title: impl Fn() -> String) -> String {
    // Ink stays readable on the strongest tint, in both colour schemes.
    let percent = 55.0 * strength.clamp(0.0, 1.0);
    format!(
        "<td class=\"{class}\" style=\"--tint:{percent:.0}%\" title=\"{}\">{content}</td>",
        escape(&title())
    )
}

fn attribution(side: &Inspection) -> String {
    let largest = side.attribution.iter().map(|part| part.value.abs()).fold(0.0, f64::max);
    let cell = |part: &Part| {
        let class = if part.value < 0.0 { "minus" } else { "plus" };
        let strength = if largest > 0.0 { part.value.abs() / largest } else { 0.0 };
        tinted(strength, class, &format!("{:+.3}", part.value), || {
            format!("{}: {:+.6}", component_name(part), part.value)
        })
    };
    let in_layer = |layer| side.attribution.iter().filter(move |part| part.layer == Some(layer));
    let heads = in_layer(0).filter(|part| part.kind == ComponentKind::Head).count();
    let mut head = String::from("<th>layer</th>");
    (0..heads).for_each(|i| {
        let _ = write!(head, "<th class=\"n\">head {i}</th>");
    });
    head += "<th class=\"n\">bias</th><th class=\"n\">MLP</th><th class=\"n\">sum</th>";
    let mut rows = String::new();
    for layer in (0..side.lens.len()).rev() {
        let sum: f64 = in_layer(layer).map(|part| part.value).sum();
        let cells: String = in_layer(layer).map(cell).collect();
        let _ =
            writeln!(rows, "<tr><th scope=\"row\">{layer}</th>{cells}<td class=\"n\">{sum:+.3}</td></tr>");
    }
    let others: Vec<String> = side
        .attribution
        .iter()
        .filter(|part| part.layer.is_none())
        .map(|part| format!("{} {:+.3}", component_name(part), part.value))
        .collect();
    format!(
        "{}<p class=\"about\">{}; all parts together {:+.3}.</p>\n",
        table(&head, &rows),
        others.join(", "),
        side.logit_difference
    )
}

fn attention(tokens: &[InspectedToken], pattern: &AttentionPattern) -> String {
    const SIZE: f64 = 11.0;
    const CELL: f64 = 18.0;
    let first = tokens.len().saturating_sub(MAPPED);
    let label = |token: &InspectedToken| shortened(&visible(&token.text), LABEL);
    let labels: Vec<String> = tokens[first..].iter().map(label).collect();
    let n = labels.len();
    let reach = labels.iter().map(|label| text_width(label, SIZE)).fold(0.0, f64::max);
    let (left, top) = (reach + 12.0, reach + 12.0);
    let width = CELL * n as f64;
    let mut svg = Svg::new(left + width + 8.0, top + width + 8.0);
    for (i, label) in labels.iter().enumerate() {
        let at = (i as f64 + 0.5) * CELL + SIZE / 3.0;
        svg.text((left - 6.0, top + at), Anchor::End, "tick", label);
        svg.turned_text((left + at, top - 6.0), -90.0, Anchor::Start, "tick", label);
    }
    for (i, query) in labels.iter().enumerate() {
        for (j, key) in labels.iter().enumerate().take(i + 1) {
            let weight = pattern.weights[first + i][first + j];
            let corner = (left + j as f64 * CELL, top + i as f64 * CELL);
            if weight >= LEAST {
                let title = format!("{query} on {key}: {weight:.4}");
                svg.tinted_rect(corner, (CELL - 1.0, CELL - 1.0), weight, "heat", &title);
            }
        }
    }
    svg.rect((left, top), (width, width), "frame", "");
    let name = format!("head {}.{}", pattern.layer, pattern.head);
    format!(
        "<figure>\n<figcaption>{name}</figcaption>\n<div class=\"scroll\" tabindex=\"0\">{}</div>\n</figure>\n",
        svg.inline(&format!("Attention weights of {name}"))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::LensLayer;

    fn side(shift: f64) -> Inspection {
        let candidate =
            |id| Candidate { id, text: format!(" <t{id}>"), logit: 1.5 + shift, probability: 0.25 };
        let part = |kind, layer, head, value| Part { kind, layer, head, value };
        Inspection {
            next: vec![candidate(1), candidate(2)],
            target: candidate(1),
            against: Some(candidate(2)),
            logit_difference: 0.5 + shift,
            lens: vec![LensLayer {
                layer: 0,
                probability: 0.125,
                rank: 3,
                logit_difference: 0.5,
                likeliest: vec![candidate(1), candidate(2)],
            }],
            attribution: vec![
                part(ComponentKind::TokenEmbedding, None, None, 0.25),
                part(ComponentKind::Head, Some(0), Some(0), -0.75 - shift),
                part(ComponentKind::AttnBias, Some(0), None, 0.0),
                part(ComponentKind::Mlp, Some(0), None, 1.0),
                part(ComponentKind::FinalNormBias, None, None, 0.0),
            ],
            attention: vec![AttentionPattern {
                layer: 0,
                head: 0,
                weights: vec![vec![1.0, 0.0], vec![0.3751, 0.6249]],
            }],
        }
    }

    fn inspected(after: Option<Inspection>) -> InspectedPrompt {
        let token = |text: &str| InspectedToken { id: 1, text: text.into() };
        InspectedPrompt {
            provenance: ModelProvenance {
                version: "9",
                model: "m".into(),
                model_sha256: "abc".into(),
                dtype: "f32",
                patches: vec![("p<1>".into(), "def".into())],
            },
            prompt: "a & b".into(),
            tokens: vec![token("a &"), token(" b")],
            before: side(0.0),
            after,
        }
    }

    #[test]
    fn a_page_holds_every_number_and_loads_nothing() {
        let page = inspection_page(&inspected(Some(side(2.0))));
        for text in [
            "a &amp; b",
            "<code>\u{b7}&lt;t1&gt;</code>",
            "1.5000",
            "3.5000",
            "-0.750",
            "-2.750",
            "b on a\u{b7}&amp;: 0.3751",
            "all parts together +2.500",
            "<dt>patch p&lt;1&gt;</dt><dd>def</dd>",
        ] {
            assert!(page.contains(text), "{text} in {page}");
        }
        assert_eq!(page.matches("<h3>With the patch</h3>").count(), 4);
        for loads in ["http:", "https:", "<script", "<link", "@import", "url("] {
            assert!(!page.contains(loads), "{loads}");
        }
        assert!(!inspection_page(&inspected(None)).contains("With the patch"));
    }

    #[test]
    fn a_long_prompt_is_drawn_from_its_end() {
        let mut long = inspected(None);
        let n = MAPPED + 5;
        long.tokens = (0..n).map(|i| InspectedToken { id: 0, text: format!("t{i}") }).collect();
        let uniform = |query: usize| -> Vec<f64> {
            (0..n).map(|key| if key <= query { 1.0 / (query + 1) as f64 } else { 0.0 }).collect()
        };
        long.before.attention[0].weights = (0..n).map(uniform).collect();
        let drawn = attention(&long.tokens, &long.before.attention[0]);
        assert_eq!(drawn.matches("class=\"heat\"").count(), MAPPED * (MAPPED + 1) / 2);
        assert!(drawn.contains(">t5</text>") && !drawn.contains(">t4</text>"));
    }
}
