//! Writes what the drivers found last into `benches/README.md`, between its markers, and draws each
//! curve as `benches/plots/NAME.svg`. `cargo bench --bench report`

mod plot;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::fs;
use std::path::Path;

use support::figures::{Figure, Line, Point};
use support::folder;

const BEGIN: &str = "<!-- measured: what stands below is written by benches/run -->";
const END: &str = "<!-- measured: end -->";

fn main() {
    let (figures, points) = read();
    let plots = plot::curves(&points);
    let benches = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    fs::create_dir_all(benches.join("plots")).expect("make the folder of plots");
    for curve in &plots {
        fs::write(benches.join("plots").join(curve.file()), curve.svg()).expect("write a plot");
    }
    let readme = benches.join("README.md");
    let text = fs::read_to_string(&readme).expect("read benches/README.md");
    let (before, rest) = text.split_once(BEGIN).expect("the first marker is there");
    let (_, after) = rest.split_once(END).expect("the last marker is there");
    let shown: String = plots
        .iter()
        .map(|curve| format!("![{}](plots/{})\n\n{}\n", curve.name, curve.file(), curve.table()))
        .collect();
    let table = table::of(&figures);
    fs::write(&readme, format!("{before}{BEGIN}\n\n{table}\n{shown}{END}{after}")).expect("write the table");
    println!("{} figures and {} plots are in {}", figures.len(), plots.len(), readme.display());
}

/// The last result of every figure and every point, in the order in which they first came.
fn read() -> (Vec<Figure>, Vec<Point>) {
    let (mut figures, mut points) = (Vec::<Figure>::new(), Vec::<Point>::new());
    let entries = fs::read_dir(folder()).expect("nothing was measured yet: benches/run");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("list the results").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    for path in files {
        for line in fs::read_to_string(&path).expect("read results").lines() {
            match serde_json::from_str(line).expect("a result is as this program writes it") {
                Line::Figure(figure) => {
                    keep(&mut figures, figure, |a, b| a.row == b.row && a.figure == b.figure)
                }
                Line::Point(point) => {
                    keep(&mut points, point, |a, b| a.curve == b.curve && a.line == b.line && a.x == b.x);
                }
            }
        }
    }
    (figures, points)
}

fn keep<T>(known: &mut Vec<T>, new: T, is_same: impl Fn(&T, &T) -> bool) {
    match known.iter().position(|known| is_same(known, &new)) {
        Some(place) => known[place] = new,
        None => known.push(new),
    }
}
