//! A small SVG writer: shapes with few decimals, escaped text, and a style for light and dark schemes.

use std::fmt::Write;

/// Style of all drawings. The page holds it once; a standalone file brings its own copy.
pub const STYLE: &str = include_str!("figure.css");

/// Horizontal anchor of a text.
#[derive(Clone, Copy, Debug)]
pub enum Anchor {
    /// The text begins at its position.
    Start,
    /// The text is centred on its position.
    Middle,
    /// The text ends at its position.
    End,
}

/// A drawing that grows shape by shape. Colours and fonts come from classes in [`STYLE`].
#[derive(Clone, Debug)]
pub struct Svg {
    width: f64,
    height: f64,
    body: String,
}

impl Svg {
    /// An empty panel, sizes in pixels.
    pub fn new(width: f64, height: f64) -> Self {
        let mut svg = Self { width, height, body: String::new() };
        svg.rect((0.0, 0.0), (width, height), "panel", "");
        svg
    }

    /// A rectangle from its upper left corner and its size. A `title` becomes a tooltip; empty means none.
    pub fn rect(&mut self, corner: (f64, f64), size: (f64, f64), class: &str, title: &str) {
        self.shape(
            "rect",
            &[("x", corner.0), ("y", corner.1), ("width", size.0), ("height", size.1)],
            class,
            title,
        );
    }

    /// A translucent rectangle; `opacity` in [0, 1].
    pub fn tinted_rect(
        &mut self,
        corner: (f64, f64),
        size: (f64, f64),
        opacity: f64,
        class: &str,
        title: &str,
    ) {
        let (x, y) = corner;
        let geometry = [("x", x), ("y", y), ("width", size.0), ("height", size.1), ("fill-opacity", opacity)];
        self.shape("rect", &geometry, class, title);
    }

    /// A line between two points.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        self.shape("line", &[("x1", from.0), ("y1", from.1), ("x2", to.0), ("y2", to.1)], class, "");
    }

    /// A circle.
    pub fn circle(&mut self, centre: (f64, f64), radius: f64, class: &str, title: &str) {
        self.shape("circle", &[("cx", centre.0), ("cy", centre.1), ("r", radius)], class, title);
    }

    /// An open polyline, or a closed polygon.
    pub fn path(&mut self, points: &[(f64, f64)], closed: bool, class: &str, title: &str) {
        let mut data = String::new();
        for (index, &(x, y)) in points.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            let _ = write!(data, "{command}{} {}", coordinate(x), coordinate(y));
        }
        if closed {
            data.push('Z');
        }
        let _ = write!(self.body, "<path d=\"{data}\"");
        self.close("path", class, title);
    }

    /// A cubic Bézier curve through its four control points; `width` in pixels, `opacity` in [0, 1].
    pub fn curve(&mut self, points: [(f64, f64); 4], (width, opacity): (f64, f64), class: &str, title: &str) {
        let [from, a, b, to] = points.map(|(x, y)| format!("{} {}", coordinate(x), coordinate(y)));
        let (width, opacity) = (fixed(width, 2), fixed(opacity, 2));
        let _ = write!(
            self.body,
            "<path d=\"M{from}C{a} {b} {to}\" stroke-width=\"{width}\" stroke-opacity=\"{opacity}\""
        );
        self.close("path", class, title);
    }

    /// Shapes that belong together, under a name that scripts find them by.
    pub fn group(&mut self, name: &str, class: &str, title: &str, draw: impl FnOnce(&mut Svg)) {
        let (name, title) = (escape(name), escape(title));
        let _ = writeln!(self.body, "<g data-name=\"{name}\" class=\"{class}\"><title>{title}</title>");
        draw(self);
        self.body.push_str("</g>\n");
    }

    /// A line of text; `at` lies on its baseline.
    pub fn text(&mut self, at: (f64, f64), anchor: Anchor, class: &str, content: &str) {
        self.turned_text(at, 0.0, anchor, class, content);
    }

    /// A line of text rotated clockwise about `at` by `degrees`.
    pub fn turned_text(&mut self, at: (f64, f64), degrees: f64, anchor: Anchor, class: &str, content: &str) {
        let (x, y) = (coordinate(at.0), coordinate(at.1));
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => "centred ",
            Anchor::End => "end ",
        };
        let _ = write!(self.body, "<text x=\"{x}\" y=\"{y}\"");
        if degrees != 0.0 {
            let _ = write!(self.body, " transform=\"rotate({} {x} {y})\"", coordinate(degrees));
        }
        let _ = writeln!(self.body, " class=\"{anchor}{class}\">{}</text>", escape(content));
    }

    /// The drawing as an element of an HTML page that holds [`STYLE`]; `label` is read out by screen readers.
    ///
    /// On a narrow page the drawing shrinks to a width of 640 pixels, at which text is still readable; below that the
    /// page scrolls.
    pub fn inline(&self, label: &str) -> String {
        let least = coordinate(self.width.min(640.0));
        self.document(&format!(" style=\"min-width:{least}px\""), label, "")
    }

    /// The drawing as a file of its own.
    pub fn standalone(&self, label: &str) -> String {
        self.document(" xmlns=\"http://www.w3.org/2000/svg\"", label, &format!("<style>\n{STYLE}</style>\n"))
    }

    fn document(&self, attributes: &str, label: &str, style: &str) -> String {
        let (width, height) = (coordinate(self.width), coordinate(self.height));
        let (label, body) = (escape(label), &self.body);
        format!(
            "<svg{attributes} class=\"plot\" role=\"img\" aria-label=\"{label}\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\">\n{style}{body}</svg>\n"
        )
    }

    fn shape(&mut self, name: &str, geometry: &[(&str, f64)], class: &str, title: &str) {
        let _ = write!(self.body, "<{name}");
        for &(attribute, value) in geometry {
            let number = if attribute == "fill-opacity" { fixed(value, 2) } else { coordinate(value) };
            let _ = write!(self.body, " {attribute}=\"{number}\"");
        }
        self.close(name, class, title);
    }

    fn close(&mut self, name: &str, class: &str, title: &str) {
        let _ = write!(self.body, " class=\"{class}\"");
        let _ = if title.is_empty() {
            writeln!(self.body, "/>")
        } else {
            writeln!(self.body, "><title>{}</title></{name}>", escape(title))
        };
    }
}

/// A coordinate in tenths of a pixel.
fn coordinate(value: f64) -> String {
    fixed(value, 1)
}

/// A number with so many decimals at most, the same text for 0 and -0.
fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    match text.trim_end_matches('0').trim_end_matches('.') {
        "-0" => "0".to_owned(),
        text => text.to_owned(),
    }
}

/// Escapes text for use between tags and in quoted attributes of XML and HTML.
///
/// Control characters that XML 1.0 forbids become U+FFFD.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' | '\r' => escaped.push(character),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            character if character < ' ' => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}

/// Estimated width of a line of text, in pixels: layout must not depend on the fonts of the machine.
pub fn text_width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.56
}

/// Text cut to at most `limit` characters, with an ellipsis when it was cut.
pub fn shortened(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_leaves_no_markup_and_no_forbidden_control_character() {
        assert_eq!(escape("a<b> & \"c\" 'd'"), "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39;");
        assert_eq!(escape("x\u{0}\u{8}\ty"), "x\u{fffd}\u{fffd}\ty");
    }

    #[test]
    fn numbers_have_few_decimals_and_no_negative_zero() {
        assert_eq!([-0.001, 1.0 / 3.0, -20.0, 100.0, 2.96].map(coordinate), ["0", "0.3", "-20", "100", "3"]);
        assert_eq!([0.25, 0.5, 0.999].map(|value| fixed(value, 2)), ["0.25", "0.5", "1"]);
    }

    #[test]
    fn text_is_written_between_its_tags() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.turned_text((1.0, 2.0), -45.0, Anchor::End, "tick", "a<b");
        let text = "<text x=\"1\" y=\"2\" transform=\"rotate(-45 1 2)\" class=\"end tick\">a&lt;b</text>";
        assert!(svg.inline("").contains(text), "{}", svg.inline(""));
    }

    #[test]
    fn curves_and_groups_are_closed() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.group("a<v>", "node", "b&c", |svg| {
            svg.curve([(0.0, 1.0), (2.0, 3.0), (4.0, 5.0), (6.0, 7.0)], (1.5, 0.25), "edge", "");
        });
        let text = "<g data-name=\"a&lt;v&gt;\" class=\"node\"><title>b&amp;c</title>\n\
                    <path d=\"M0 1C2 3 4 5 6 7\" stroke-width=\"1.5\" stroke-opacity=\"0.25\" \
                    class=\"edge\"/>\n</g>\n";
        assert!(svg.inline("").contains(text), "{}", svg.inline(""));
    }

    #[test]
    fn shortening_counts_characters_and_marks_the_cut() {
        assert_eq!(shortened("ünïcode", 7), "ünïcode");
        assert_eq!(shortened("ünïcode", 4), "ünï…");
    }
}
