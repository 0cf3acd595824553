//! Curves as SVG: both axes in powers of ten, a line with its points for each candidate, a bar from the
//! least to the most that was seen.

use std::fmt::Write as _;

use crate::support::figures::Point;
use crate::table::number;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
/// Left, right, above and below the field.
const MARGINS: [f64; 4] = [70.0, 20.0, 56.0, 46.0];
/// About how wide a letter of a legend is.
const LETTER_WIDTH: f64 = 6.0;
const COLORS: [&str; 6] = ["#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a"];

/// One plot.
pub(crate) struct Curve<'a> {
    pub(crate) name: &'a str,
    points: Vec<&'a Point>,
}

/// The plots, in the order of their first points.
pub(crate) fn curves(points: &[Point]) -> Vec<Curve<'_>> {
    let mut curves: Vec<Curve<'_>> = Vec::new();
    for point in points {
        match curves.iter_mut().find(|curve| curve.name == point.curve) {
            Some(curve) => curve.points.push(point),
            None => curves.push(Curve { name: &point.curve, points: vec![point] }),
        }
    }
    curves
}

/// An axis over whole powers of ten.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>) -> Self {
        let logs = values.filter(|value| *value > 0.0).map(f64::log10);
        let (low, high) = logs.fold((f64::MAX, f64::MIN), |(low, high), log| (low.min(log), high.max(log)));
        let (low, high) = if low > high { (0.0, 1.0) } else { (low.floor(), high.ceil()) };
        Self { low, high: if high > low { high } else { low + 1.0 } }
    }

    /// From 0 at the low end to 1 at the high end.
    fn place(&self, value: f64) -> f64 {
        ((value.max(f64::MIN_POSITIVE).log10() - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn marks(&self) -> impl Iterator<Item = f64> {
        (self.low as i32..=self.high as i32).map(|power| 10_f64.powi(power))
    }
}

impl Curve<'_> {
    /// The name of its file.
    pub(crate) fn file(&self) -> String {
        let plain = |sign: char| if sign.is_ascii_alphanumeric() { sign.to_ascii_lowercase() } else { '-' };
        format!("{}.svg", self.name.chars().map(plain).collect::<String>())
    }

    /// The whole drawing.
    pub(crate) fn svg(&self) -> String {
        let x = Axis::over(self.points.iter().map(|point| point.x));
        let y = Axis::over(self.points.iter().flat_map(|point| [point.y.min, point.y.max]));
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
        );
        let first = self.points[0];
        text(&mut out, (MARGINS[0], 20.0, "start"), self.name);
        text(&mut out, (WIDTH / 2.0, HEIGHT - 8.0, "middle"), &first.x_unit);
        text(&mut out, (8.0, 20.0, "start"), &first.y_unit);
        grid(&mut out, &x, &y);
        let mut left = MARGINS[0];
        for (line, color) in self.lines().into_iter().zip(COLORS.into_iter().cycle()) {
            self.draw(&mut out, (line, color), (&x, &y));
            put(
                &mut out,
                format_args!("<rect x=\"{left}\" y=\"27\" width=\"10\" height=\"10\" fill=\"{color}\"/>\n"),
            );
            text(&mut out, (left + 15.0, 36.0, "start"), line);
            left += 40.0 + LETTER_WIDTH * line.len() as f64;
        }
        out.push_str("</svg>\n");
        out
    }

    /// The medians: a row for each place on the axis, a column for each line.
    pub(crate) fn table(&self) -> String {
        let lines = self.lines();
        let mut rows: Vec<f64> = self.points.iter().map(|point| point.x).collect();
        rows.sort_by(f64::total_cmp);
        rows.dedup();
        let first = self.points[0];
        let mut out = format!("{}, in {}:\n\n| {} |", self.name, first.y_unit, first.x_unit);
        lines.iter().for_each(|line| put(&mut out, format_args!(" {line} |")));
        put(&mut out, format_args!("\n|---|{}\n", "---|".repeat(lines.len())));
        for x in rows {
            put(&mut out, format_args!("| {} |", number(x)));
            for line in &lines {
                let point = self.points.iter().find(|point| point.line == *line && point.x == x);
                let value = point.map(|point| number(point.y.median)).unwrap_or_default();
                put(&mut out, format_args!(" {value} |"));
            }
            out.push('\n');
        }
        out
    }

    fn lines(&self) -> Vec<&str> {
        let mut lines: Vec<&str> = Vec::new();
        for point in &self.points {
            if !lines.contains(&point.line.as_str()) {
                lines.push(&point.line);
            }
        }
        lines
    }

    fn draw(&self, out: &mut String, (line, color): (&str, &str), (x, y): (&Axis, &Axis)) {
        let mut points: Vec<&&Point> = self.points.iter().filter(|point| point.line == line).collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        let mut path = String::new();
        for point in &points {
            let (left, top) = (across(x.place(point.x)), down(y.place(point.y.median)));
            let (low, high) = (down(y.place(point.y.min)), down(y.place(point.y.max)));
            put(&mut path, format_args!("{left:.1},{top:.1} "));
            put(
                out,
                format_args!(
                    "<path d=\"M{left:.1} {low:.1}V{high:.1}\" stroke=\"{color}\"/>\
                     <circle cx=\"{left:.1}\" cy=\"{top:.1}\" r=\"3\" fill=\"{color}\"/>\n"
                ),
            );
        }
        put(
            out,
            format_args!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>\n",
                path.trim()
            ),
        );
    }
}

fn grid(out: &mut String, x: &Axis, y: &Axis) {
    let (left, right, top, bottom) = (across(0.0), across(1.0), down(1.0), down(0.0));
    for mark in x.marks() {
        let at = across(x.place(mark));
        put(out, format_args!("<path d=\"M{at:.1} {top}V{bottom}\" stroke=\"#d0d7de\"/>\n"));
        text(out, (at, bottom + 16.0, "middle"), &power(mark));
    }
    for mark in y.marks() {
        let at = down(y.place(mark));
        put(out, format_args!("<path d=\"M{left} {at:.1}H{right}\" stroke=\"#d0d7de\"/>\n"));
        text(out, (left - 6.0, at + 4.0, "end"), &power(mark));
    }
}

/// A power of ten without the digits that count nothing.
fn power(mark: f64) -> String {
    let text = number(mark);
    let (digits, unit) = text.split_once(' ').unwrap_or((text.as_str(), ""));
    let digits =
        if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    format!("{digits} {unit}").trim_end().to_owned()
}

fn across(part: f64) -> f64 {
    MARGINS[0] + part * (WIDTH - MARGINS[0] - MARGINS[1])
}

fn down(part: f64) -> f64 {
    HEIGHT - MARGINS[3] - part * (HEIGHT - MARGINS[2] - MARGINS[3])
}

fn text(out: &mut String, (x, y, anchor): (f64, f64, &str), words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    put(out, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>\n"));
}

fn put(out: &mut String, more: std::fmt::Arguments<'_>) {
    out.write_fmt(more).expect("a text takes all");
}
