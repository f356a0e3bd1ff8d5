//! A circuit as a drawing: layers from the input at the bottom to the logits at the top, in every layer its heads side
//! by side and its MLP to their right, a little higher because it reads them. So every edge goes upwards.
//!
//! An edge into a head ends at its left for queries, in the middle for keys, at the right for values. With `s` its
//! score and `m` the largest absolute score, its width and opacity grow with `sqrt(|s| / m)`.

use locus_circuits::edges::{Destination, Edge, EdgeScores, Graph, QkvInput, Source};

use super::svg::{Anchor, Svg};
use crate::report::cell::number;
use crate::results::Style;

/// Style of the drawing, beside that of all drawings.
pub const STYLE: &str = include_str!("circuit.css");

/// Height of a node, which is also large enough to be touched.
const NODE: f64 = 24.0;
/// Width of the input and of the logits.
const WIDE: f64 = 96.0;
/// Distance of two layers, and how far an MLP stands above its heads.
const PITCH: f64 = 84.0;
const RAISED: f64 = 36.0;
/// Room for the names of layers.
const LEFT: f64 = 70.0;
const MARGIN: f64 = 24.0;
/// Width that the columns share, and what a column may have of it.
const COLUMNS: f64 = 660.0;
const NARROWEST: f64 = 44.0;
const WIDEST: f64 = 104.0;

/// What positive and negative scores are said to mean below the drawing.
pub struct Signs {
    pub positive: &'static str,
    pub negative: &'static str,
}

/// Draws some edges, given from the best to the worst, which are drawn last to first.
pub fn draw(edges: &[Edge], scores: &EdgeScores, signs: &Signs) -> Svg {
    let grid = Grid::new(scores.graph());
    let graph = grid.graph;
    let (width, height) = (grid.width(), grid.height());
    let mut svg = Svg::new(width, height + 52.0);
    for layer in 0..graph.n_layer {
        let y = grid.heads(layer);
        if layer % 2 == 0 {
            svg.rect((0.0, y - RAISED - 24.0), (width, PITCH), "stripe", "");
        }
        svg.text((LEFT - 12.0, y + 4.0 - RAISED / 2.0), Anchor::End, "tick", &format!("layer {layer}"));
    }
    let largest = edges.iter().map(|&edge| scores.get(edge).abs()).fold(0.0, f64::max);
    for &edge in edges.iter().rev() {
        let score = scores.get(edge);
        let strength = if largest > 0.0 && score.is_finite() { (score.abs() / largest).sqrt() } else { 0.3 };
        let class = match score {
            score if !score.is_finite() => "edge unscored",
            score if score < 0.0 => "edge minus",
            _ => "edge plus",
        };
        let title = format!("{}: {}", graph.name(edge), score_text(score));
        svg.curve(grid.route(edge), (0.8 + 4.2 * strength, 0.3 + 0.65 * strength), class, &title);
    }
    let (used, of_nodes) = (used_nodes(graph, edges), scores.node_scores());
    for (row, used) in used.into_iter().enumerate() {
        let source = graph.source(row);
        let centre = grid.node(source);
        if !used {
            svg.circle(centre, 2.5, "dot", "");
            continue;
        }
        let name = source.to_string();
        let title = format!("{}, {name}: its edges sum to {}", spelt(source), score_text(of_nodes[row]));
        let label = match source {
            Source::Input => "input".to_owned(),
            Source::Head(_, head) => format!("h{head}"),
            Source::Mlp(_) => "MLP".to_owned(),
        };
        node(&mut svg, &name, &title, centre, grid.node_width(source), &label);
    }
    node(&mut svg, "logits", "logits", grid.logits(), WIDE, "logits");
    for (i, (class, text)) in
        [("edge plus", signs.positive), ("edge minus", signs.negative)].iter().enumerate()
    {
        let y = height + 8.0 + 20.0 * i as f64;
        svg.line((LEFT, y), (LEFT + 28.0, y), class);
        svg.text((LEFT + 36.0, y + 4.0), Anchor::Start, "tick", text);
    }
    svg
}

/// Which sources an edge of the circuit leaves or goes to.
pub fn used_nodes(graph: Graph, edges: &[Edge]) -> Vec<bool> {
    let mut used = vec![false; graph.n_sources()];
    for edge in edges {
        used[edge.source] = true;
        if let Some(node) = graph.node_of(graph.destination(edge.destination)) {
            used[graph.row(node)] = true;
        }
    }
    used
}

/// A score for people, with its sign.
pub fn score_text(score: f64) -> String {
    if !score.is_finite() {
        return "no score".to_owned();
    }
    let plus = if score > 0.0 { "+" } else { "" };
    format!("{plus}{}", number(score, Style::Significant3))
}

fn spelt(source: Source) -> String {
    match source {
        Source::Input => "token embedding".to_owned(),
        Source::Head(layer, head) => format!("head {head} of layer {layer}"),
        Source::Mlp(layer) => format!("MLP of layer {layer}"),
    }
}

fn node(svg: &mut Svg, name: &str, title: &str, (x, y): (f64, f64), width: f64, label: &str) {
    svg.group(name, "node", title, |svg| {
        svg.rect((x - width / 2.0, y - NODE / 2.0), (width, NODE), "box", "");
        svg.text((x, y + 4.0), Anchor::Middle, "name", label);
    });
}

/// Places of the nodes, in pixels.
struct Grid {
    graph: Graph,
    /// Width of a column.
    cell: f64,
}

impl Grid {
    fn new(graph: Graph) -> Self {
        Grid { graph, cell: (COLUMNS / (graph.n_head + 1) as f64).clamp(NARROWEST, WIDEST) }
    }

    fn width(&self) -> f64 {
        LEFT + self.cell * (self.graph.n_head + 1) as f64 + MARGIN
    }

    fn height(&self) -> f64 {
        self.node(Source::Input).1 + MARGIN
    }

    /// Height of the heads of a layer.
    fn heads(&self, layer: usize) -> f64 {
        MARGIN + RAISED + PITCH * (self.graph.n_layer - layer) as f64
    }

    fn column(&self, column: usize) -> f64 {
        LEFT + self.cell * (column as f64 + 0.5)
    }

    fn middle(&self) -> f64 {
        LEFT + self.cell * (self.graph.n_head + 1) as f64 / 2.0
    }

    fn logits(&self) -> (f64, f64) {
        (self.middle(), MARGIN)
    }

    fn node(&self, source: Source) -> (f64, f64) {
        match source {
            Source::Input => (self.middle(), self.heads(0) + PITCH - RAISED / 2.0),
            Source::Head(layer, head) => (self.column(head), self.heads(layer)),
            Source::Mlp(layer) => (self.column(self.graph.n_head), self.heads(layer) - RAISED),
        }
    }

    fn node_width(&self, source: Source) -> f64 {
        if source == Source::Input { WIDE } else { (self.cell - 10.0).min(52.0) }
    }

    /// The curve of an edge, from the top of its source to the bottom of its destination.
    fn route(&self, edge: Edge) -> [(f64, f64); 4] {
        let source = self.graph.source(edge.source);
        let destination = self.graph.destination(edge.destination);
        let ((mut x0, y0), mut end) = (self.node(source), self.logits());
        if let Some(node) = self.graph.node_of(destination) {
            end = self.node(node);
            if let Destination::Head(_, input, _) = destination {
                let third = self.node_width(node) / 3.0;
                end.0 += match input {
                    QkvInput::Query => -third,
                    QkvInput::Key => 0.0,
                    QkvInput::Value => third,
                };
            }
        }
        let (mut x1, y1) = end;
        // Edges of the wide nodes spread over them.
        let spread = |from: f64, to: f64| from + (0.12 * (to - from)).clamp(-0.4 * WIDE, 0.4 * WIDE);
        if source == Source::Input {
            x0 = spread(x0, x1);
        }
        if destination == Destination::Logits {
            x1 = spread(x1, x0);
        }
        let (start, end) = (y0 - NODE / 2.0, y1 + NODE / 2.0);
        let rise = start - end;
        // A curve that would run through the nodes of its own column swings into the gap beside it.
        let swing = if (x0 - x1).abs() < self.cell / 2.0 && rise > PITCH { 0.67 * self.cell } else { 0.0 };
        let lift = 0.45 * rise;
        [(x0, start), (x0 + swing, start - lift), (x1 + swing, end + lift), (x1, end)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    const GRAPH: Graph = Graph { n_layer: 3, n_head: 2 };
    const SIGNS: Signs = Signs { positive: "helps", negative: "hurts" };

    #[test]
    fn every_edge_goes_upwards_between_its_nodes() {
        let grid = Grid::new(GRAPH);
        for edge in GRAPH.edges() {
            let [from, a, b, to] = grid.route(edge);
            assert!(from.1 > to.1, "{}: {from:?} to {to:?}", GRAPH.name(edge));
            assert!(from.1 >= a.1 && b.1 >= to.1, "{}", GRAPH.name(edge));
            for (x, y) in [from, a, b, to] {
                assert!((0.0..=grid.width()).contains(&x) && (0.0..=grid.height()).contains(&y));
            }
        }
        let route = |name: &str| grid.route(GRAPH.parse(name).unwrap());
        let ends = ["q", "k", "v"].map(|input| route(&format!("m0->a1.h0<{input}>"))[3].0);
        assert!(ends[0] < ends[1] && ends[1] < ends[2], "{ends:?}");
        assert!(route("m0->m2")[1].0 > route("m0->m2")[0].0, "around m1");
        assert_eq!(route("m0->m1")[1].0, route("m0->m1")[0].0, "nothing is in between");
    }

    #[test]
    fn sign_and_size_show() {
        let mut values = Array2::from_elem((GRAPH.n_sources(), GRAPH.n_destinations()), f64::NAN);
        let named = [("input->m0", 4.0), ("m0->a1.h0<v>", -1.44), ("a1.h0->logits", f64::NAN)];
        let edges = named.map(|(name, _)| GRAPH.parse(name).unwrap());
        for (edge, (_, score)) in edges.iter().zip(named) {
            values[(edge.source, edge.destination)] = score;
        }
        let drawn = draw(&edges, &EdgeScores::new(GRAPH, values), &SIGNS).inline("");
        // Strengths 1, 0.6 and, without a score, 0.3; the first is drawn last.
        let at = |text: &str| drawn.find(text).unwrap_or_else(|| panic!("{text} in {drawn}"));
        let best = at(
            "stroke-width=\"5\" stroke-opacity=\"0.95\" class=\"edge plus\"><title>input-&gt;m0: +4.00</title>",
        );
        let second = at("stroke-width=\"3.32\" stroke-opacity=\"0.69\" class=\"edge minus\"");
        at("class=\"edge unscored\"><title>a1.h0-&gt;logits: no score</title>");
        assert!(second < best);
        assert_eq!(drawn.matches("class=\"node\"").count(), 4, "input, m0, a1.h0, logits");
        assert_eq!(drawn.matches("class=\"dot\"").count(), GRAPH.n_sources() - 3);
    }
}
