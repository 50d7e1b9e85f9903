//! Draws the main figures as a self-contained SVG file, for light and dark pages.
//!
//! Each quantity has a separate scale and one bar per contender: the median, with a line from the least to
//! the greatest round.

use std::fmt::Write as _;

use super::figures::{Contender, Figures, Quantity, Row};
use super::table::number;
use crate::xml::escape;

/// Quantities shown, and whether more is better.
const SHOWN: [(Quantity, bool); 9] = [
    (Quantity::Stream1, true),
    (Quantity::Stream8, true),
    (Quantity::SenderCpu, false),
    (Quantity::ReceiverCpu, false),
    (Quantity::PingP50, false),
    (Quantity::PingP99, false),
    (Quantity::Connections, true),
    (Quantity::FirstByte, false),
    (Quantity::Recovery, false),
];

// Lengths in pixels.
const MARGIN: usize = 20;
const COLUMN: usize = 440;
/// Height of the title and the lines below it.
const HEAD_HEIGHT: usize = 92;
/// Height of a quantity's name and the gap below its bars.
const PANEL: usize = 42;
const ROW: usize = 20;
/// Position of the bars, and length of the longest bar.
const BAR_AT: usize = 145;
const BAR_LENGTH: f64 = 200.0;
const VALUE_AT: usize = COLUMN - 20;

/// Style sheet. The background keeps the text readable on pages whose colours differ from the system's.
const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-size:18px;font-weight:600}.name{font-weight:600}
.right{text-anchor:end}.back{fill:#fff}.spread{stroke:#1f2328;stroke-width:1.5}
.limit{fill:#8c959f}.kernel{fill:#d4a72c}.quinn{fill:#a475f9}.peersock{fill:#0969da}.peersock-fd{fill:#54aeff}
.peersock-busy{fill:#1a7f64}.peersock-chacha{fill:#bf3989}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.back{fill:#0d1117}.spread{stroke:#e6edf3}
.limit{fill:#6e7681}.kernel{fill:#9e6a03}.quinn{fill:#8957e5}.peersock{fill:#1f6feb}
.peersock-fd{fill:#388bfd}.peersock-busy{fill:#2ea083}.peersock-chacha{fill:#db61a2}}";

/// Returns the picture, with lines of text that name the machine and the conditions.
pub(crate) fn svg(figures: &Figures, machine: &str, conditions: &str) -> String {
    let panels: Vec<_> = SHOWN
        .into_iter()
        .map(|(quantity, more)| (quantity, more, rows(figures, quantity)))
        .filter(|(_, _, rows)| !rows.is_empty())
        .collect();
    let mut body = String::new();
    let mut top = HEAD_HEIGHT;
    for pair in panels.chunks(2) {
        for ((quantity, more, rows), left) in pair.iter().zip([MARGIN, MARGIN + COLUMN]) {
            body.push_str(&panel(*quantity, *more, rows, left, top));
        }
        top += PANEL + ROW * pair.iter().map(|(_, _, rows)| rows.len()).max().unwrap_or(0);
    }
    let (width, height) = (2 * (MARGIN + COLUMN) - MARGIN, top);
    let legend = "Bars: medians. Lines: least to greatest round. * the machine was not idle in some round.";
    let title = "peersock beside kernel TCP, QUIC and encrypted UDP";
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n<rect class=\"back\" width=\"{width}\" height=\"{height}\"/>\n\
         {}{}{}{}{body}</svg>\n",
        text(MARGIN, 30, "title", title),
        text(MARGIN, 48, "", machine),
        text(MARGIN, 63, "", conditions),
        text(MARGIN, 78, "", legend),
    )
}

fn rows(figures: &Figures, quantity: Quantity) -> Vec<(Contender, Row)> {
    let row = |contender| Some((contender, figures.row(quantity, contender)?));
    Contender::ALL.into_iter().filter_map(row).collect()
}

/// Draws one quantity, with its name above the bars.
fn panel(quantity: Quantity, more: bool, rows: &[(Contender, Row)], left: usize, top: usize) -> String {
    let (_, unit) = quantity.name_and_unit();
    let better = if more { "more" } else { "less" };
    let mut out = text(left, top + 16, "name", &format!("{quantity}, {unit} ({better} is better)"));
    let greatest = rows.iter().map(|(_, row)| row.spread.max).fold(0.0, f64::max);
    // If all are zero, bars have no length.
    let length = |value: f64| value.max(0.0) / greatest.max(f64::MIN_POSITIVE) * BAR_LENGTH;
    for (i, (contender, row)) in rows.iter().enumerate() {
        let y = top + 24 + i * ROW;
        let [min, median, max] = [row.spread.min, row.spread.median, row.spread.max];
        let [from, to] = [min, max].map(|value| (left + BAR_AT) as f64 + length(value));
        let middle = y + 7;
        let mark = if row.disturbances.not_idle() > 0 { " *" } else { "" };
        out.push_str(&text(left, y + 11, "", &contender.to_string()));
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width:.1}\" height=\"14\" rx=\"2\">\
             <title>{} to {}</title></rect>\n\
             <path class=\"spread\" d=\"M{from:.1} {middle}H{to:.1}M{from:.1} {cap}v8M{to:.1} {cap}v8\"/>",
            number(min),
            number(max),
            class = contender.name(),
            x = left + BAR_AT,
            width = length(median),
            cap = middle - 4,
        );
        out.push_str(&text(left + VALUE_AT, y + 11, "right", &format!("{}{mark}", number(median))));
    }
    out
}

fn text(x: usize, y: usize, class: &str, text: &str) -> String {
    format!("<text x=\"{x}\" y=\"{y}\" class=\"{class}\">{}</text>\n", escape(text))
}

#[cfg(test)]
mod tests {
    use roxmltree::Document;

    use super::*;
    use crate::bench::idle::Disturbance;

    const BUSY: Disturbance = Disturbance { steal: 0.0, others: 1.0 };

    /// Makes two rounds of all figures, with quinn disturbed in the second one.
    fn figures() -> Figures {
        let mut figures = Figures::default();
        for (quantity, _) in SHOWN {
            for (i, contender) in Contender::ALL.into_iter().enumerate() {
                let busy = if contender == Contender::Quinn { BUSY } else { Disturbance::default() };
                figures.add(0, quantity, contender, (1.0 + i as f64, Disturbance::default()));
                figures.add(1, quantity, contender, (3.0 + i as f64, busy));
            }
        }
        figures
    }

    fn texts(document: &Document<'_>) -> Vec<String> {
        let elements = document.descendants().filter(|node| node.has_tag_name("text"));
        elements.filter_map(|node| node.text().map(str::to_owned)).collect()
    }

    #[test]
    fn the_picture_is_xml_and_names_every_figure_and_the_machine() {
        let picture = svg(&figures(), "CPU <A & B>, 2 processors", "wire");
        let document = Document::parse(&picture).expect("XML");
        let texts = texts(&document);
        assert!(texts.contains(&"CPU <A & B>, 2 processors".to_owned()), "{texts:?}");
        for (quantity, _) in SHOWN {
            let (_, unit) = quantity.name_and_unit();
            let name = format!("{quantity}, {unit} (");
            assert_eq!(texts.iter().filter(|text| text.starts_with(&name)).count(), 1, "{name}");
        }
        for contender in Contender::ALL {
            let count = texts.iter().filter(|text| **text == contender.to_string()).count();
            assert_eq!(count, SHOWN.len(), "{contender}");
        }
        assert_eq!(texts.iter().filter(|text| *text == "4.00 *").count(), SHOWN.len(), "quinn's medians");
    }

    #[test]
    fn bars_are_as_long_as_medians_and_stay_inside() {
        let mut figures = Figures::default();
        for (round, value) in [1.0, 2.0, 4.0].into_iter().enumerate() {
            figures.add(round, Quantity::PingP50, Contender::Kernel, (value, BUSY));
        }
        figures.add(0, Quantity::PingP50, Contender::Peersock, (0.0, BUSY));
        let picture = svg(&figures, "machine", "wire");
        let document = Document::parse(&picture).expect("XML");
        let bars: Vec<_> = document
            .descendants()
            .filter(|node| node.has_tag_name("rect") && node.attribute("class") != Some("back"))
            .map(|node| (node.attribute("class"), node.attribute("width")))
            .collect();
        assert_eq!(bars, [(Some("kernel"), Some("100.0")), (Some("peersock"), Some("0.0"))]);
    }

    #[test]
    fn nothing_measured_is_a_picture_without_bars() {
        let picture = svg(&Figures::default(), "machine", "wire");
        assert_eq!(texts(&Document::parse(&picture).expect("XML")).len(), 4);
    }
}
