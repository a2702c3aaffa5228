//! `simmim search`.

use super::outputs::{Outputs, is_among};
use super::rows::Collection;
use super::{open_data, print_result};
use crate::cli::{Common, SearchArgs};
use crate::counting::Counting;
use crate::exit::{self, Exit};
use crate::interrupt;
use crate::terminal::line;
use serde_json::{Value, json};
use simmim::Error;
use simmim::report::{SimilarImage, SimilarImages, similar_page, similar_sheet};
use simmim::search::{Nearest, Queries, SimilarGroup, Table, nearest, pairs, similar_groups};
use simmim_data::{Source, without_secrets};
use simmim_engine::Device;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Queries and groups that are listed by `--json`, shown on a page, on a sheet, and printed.
const LISTED: usize = 1000;
const ON_PAGE: usize = 64;
const ON_SHEET: usize = 12;
const PRINTED: usize = 10;
/// Pictures beside a query, and of a group.
const BESIDE: usize = 12;

const NEIGHBOR_COLUMNS: [&str; 5] = ["query", "rank", "file", "class", "similarity"];
const GROUP_COLUMNS: [&str; 4] = ["group", "file", "class", "similarity"];

pub(crate) fn run<D: Device>(common: &Common, args: &SearchArgs, device: &D) -> anyhow::Result<Exit> {
    let columns: &[&str] = if args.duplicates.is_some() { &GROUP_COLUMNS } else { &NEIGHBOR_COLUMNS };
    let outputs = Outputs::of(&args.out, columns)?;
    let collection = &args.collection;
    if (outputs.html.is_some() || outputs.png.is_some()) && collection.data.is_none() {
        let what = "the images are not known whose pictures are to be shown".into();
        return Err(Error::Input { what, hint: Some("give the images of --features in --data too".into()) }.into());
    }
    if !args.images.is_empty() && collection.from.is_none() {
        let what = "features of the given images cannot be computed without a model".into();
        let hint = Some("give the weights that `simmim embed` was given in --from".into());
        return Err(Error::Input { what, hint }.into());
    }
    let images: Vec<String> = args.images.iter().map(|image| image.display().to_string()).collect();
    outputs.spare(images.iter().map(String::as_str))?;
    let stop = interrupt::flag("interrupted: stopping (press Ctrl-C again to stop at once)")?;
    let Some(collection) = Collection::open(common, collection, !images.is_empty(), device, &stop)? else {
        return Ok(interrupted());
    };
    outputs.spare(collection.rows.names().files.iter().map(String::as_str))?;
    let search = Search { common, args, device, collection: &collection, outputs: &outputs, stop: &stop };
    match args.duplicates {
        Some(threshold) => search.duplicates(threshold),
        None => search.neighbors(),
    }
}

fn interrupted() -> Exit {
    line("nothing was written; the same command starts again");
    Exit::Interrupted
}

struct Search<'a, D: Device> {
    common: &'a Common,
    args: &'a SearchArgs,
    device: &'a D,
    collection: &'a Collection<D>,
    outputs: &'a Outputs,
    stop: &'a AtomicBool,
}

/// Images whose neighbors are looked for, if they are not all of the collection.
#[derive(Default)]
struct Given {
    /// `[Q, D]`
    values: Vec<f32>,
    rows: Vec<Option<usize>>,
    names: Vec<String>,
    /// Where each lies, for its picture.
    sources: Vec<(Arc<dyn Source>, usize)>,
    failed: Vec<Value>,
}

/// A query with its neighbors.
struct Found {
    query: usize,
    neighbors: Vec<Nearest>,
}

impl<D: Device> Search<'_, D> {
    fn neighbors(&self) -> anyhow::Result<Exit> {
        let (rows, k) = (&self.collection.rows, self.args.k as usize);
        let (given, exit) =
            if self.args.images.is_empty() { (None, Exit::Done) } else { self.given().map(|(g, e)| (Some(g), e))? };
        if given.as_ref().is_some_and(|given| given.names.is_empty()) {
            return Ok(exit);
        }
        if given.is_none() && rows.len() == 1 {
            let what = format!("`{}` is the only image, and has no other to be like", rows.names().files[0]);
            return Err(Error::Input { what, hint: Some("name an IMAGE to compare with it".into()) }.into());
        }
        let count = given.as_ref().map_or(rows.len(), |given| given.names.len());
        let name = |query: usize| given.as_ref().map_or(&rows.names().files[query], |given| &given.names[query]);
        let is_listed = |query: usize| count <= LISTED || (query * LISTED) % count < LISTED;
        let queries = match &given {
            None => Queries::All,
            Some(given) => Queries::Given { values: &given.values, rows: &given.rows },
        };
        let mut counting = Counting::new(self.common.quiet, count);
        let mut listed: Vec<Found> = Vec::new();
        let mut find = |table: Option<&mut Table>| {
            let mut table = table;
            let take = &mut |query: usize, neighbors: &[Nearest]| {
                if let Some(table) = &mut table {
                    for (rank, near) in neighbors.iter().enumerate() {
                        let class = rows.class(near.row).unwrap_or_default();
                        let (rank, similarity) = ((rank + 1).to_string(), similarity(near));
                        table.add([name(query), &rank, &rows.names().files[near.row], class, &similarity])?;
                    }
                }
                if is_listed(query) {
                    listed.push(Found { query, neighbors: neighbors.to_vec() });
                }
                Ok(())
            };
            let done = nearest(rows, queries, k, self.device, self.stop, &mut |done| counting.on(done), take)?;
            Ok(done.then_some(()))
        };
        let done = match &self.outputs.csv {
            None => find(None),
            Some(path) => Table::write(path, &NEIGHBOR_COLUMNS, |table| find(Some(table))),
        };
        counting.finish();
        if done?.is_none() {
            return Ok(interrupted());
        }
        let title = match count {
            1 => "Images like this one".to_owned(),
            count => format!("Images like {count} others"),
        };
        self.write_pictures(&title, "query", count, listed.len(), "queries", &|number| {
            self.shown(&listed[number], given.as_ref())
        })?;
        let prose: Vec<String> = listed
            .iter()
            .take(PRINTED)
            .map(|found| {
                let near = |near: &Nearest| format!("\n  {}  {}", similarity(near), rows.names().files[near.row]);
                format!("{}{}", name(found.query), found.neighbors.iter().map(near).collect::<String>())
            })
            .collect();
        let more = if count > PRINTED { format!("\nand {} more queries", count - PRINTED) } else { String::new() };
        let json = json!({
            "images": rows.len(),
            "features": rows.width(),
            "k": k.min(rows.len()),
            "query_count": count,
            "queries": listed.iter().map(|found| json!({
                "query": name(found.query),
                "row": given.as_ref().map_or(Some(found.query), |given| given.rows[found.query]),
                "neighbors": found.neighbors.iter().map(|near| self.json_of(near)).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "failed": given.as_ref().map_or(Vec::new(), |given| given.failed.clone()),
            "skipped_images": self.collection.skipped,
            "files": self.outputs.all(),
        });
        print_result(self.common.json, &format!("{}{more}{}", prose.join("\n"), self.wrote()), &json)?;
        Ok(exit)
    }

    /// Features of the images of the command line; one that cannot be read is reported, and the others do without it.
    fn given(&self) -> anyhow::Result<(Given, Exit)> {
        let encoder = self.collection.encoder.as_ref().expect("images need --from");
        let kind = self.args.collection.kind();
        let (mut given, mut exit) = (Given::default(), Exit::Done);
        for image in &self.args.images {
            let name = image.display().to_string();
            let computed = open_data(self.common, &name, encoder.decoding())
                .and_then(|source| Ok((encoder.collect(&source, kind, 0, self.stop, &mut |_| ())?, source)));
            let (collected, source) = match computed {
                Ok((Some(collected), source)) => (collected, source),
                Ok((None, _)) => return Ok((Given::default(), interrupted())),
                Err(error) => {
                    given.failed.push(json!({ "image": name, "error": error.to_string() }));
                    exit = exit::worse(exit, exit::report(&error.into()));
                    continue;
                }
            };
            if collected.width != self.collection.rows.width() {
                let (here, there) = (collected.width, self.collection.rows.width());
                let what = format!("--from computes {here} features, and a row of --features has {there}");
                let hint = Some("give the weights, --tokens and --block that `simmim embed` was given".into());
                return Err(Error::Input { what, hint }.into());
            }
            for skipped in &collected.skipped {
                line(&format!("warning: skipped `{}`: {}", skipped.name, skipped.reason));
                given.failed.push(json!({ "image": skipped.name, "error": skipped.reason }));
                exit = exit::worse(exit, Exit::Usage);
            }
            for (sample, values) in collected.samples.iter().zip(collected.values.chunks(collected.width)) {
                let name = source.name(*sample);
                if values.iter().all(|value| *value == 0.0) {
                    line(&format!("warning: all features of `{name}` are 0, so that it is like no image"));
                }
                let files = self.collection.rows.names().files.iter().map(String::as_str);
                given.rows.push(is_among(Path::new(&name), files));
                given.names.push(name);
                given.sources.push((Arc::clone(&source), *sample));
            }
            given.values.extend(collected.values);
        }
        Ok((given, exit))
    }

    fn duplicates(&self, threshold: f32) -> anyhow::Result<Exit> {
        let rows = &self.collection.rows;
        let all = pairs(rows.len()).max(1);
        let mut counting = Counting::new(self.common.quiet, rows.len());
        let of_rows = |pairs: u64| (u128::from(pairs) * rows.len() as u128 / u128::from(all)) as usize;
        let groups = similar_groups(rows, threshold, self.device, self.stop, &mut |pairs| counting.on(of_rows(pairs)));
        counting.finish();
        let Some(groups) = groups? else { return Ok(interrupted()) };
        if let Some(path) = &self.outputs.csv {
            Table::write(path, &GROUP_COLUMNS, |table| {
                for (number, group) in groups.iter().enumerate() {
                    for near in &group.rows {
                        let class = rows.class(near.row).unwrap_or_default();
                        table.add([&number.to_string(), &rows.names().files[near.row], class, &similarity(near)])?;
                    }
                }
                Ok(Some(()))
            })?;
        }
        let title = format!("Groups of images with a similarity of {threshold} or more");
        self.write_pictures(&title, "first", groups.len(), groups.len().min(LISTED), "groups", &|number| {
            self.shown_group(&groups[number])
        })?;
        let images: usize = groups.iter().map(|group| group.rows.len()).sum();
        let mut prose = format!(
            "{images} of {} images in {} group{}",
            rows.len(),
            groups.len(),
            if groups.len() == 1 { "" } else { "s" }
        );
        for group in groups.iter().take(PRINTED) {
            let conflict = if self.is_contradictory(group) { " (in different classes)" } else { "" };
            prose += &format!("\n{} images{conflict}", group.rows.len());
            let near = |near: &Nearest| format!("\n  {}  {}", similarity(near), rows.names().files[near.row]);
            prose += &group.rows.iter().take(PRINTED).map(near).collect::<String>();
            if group.rows.len() > PRINTED {
                prose += &format!("\n  and {} more", group.rows.len() - PRINTED);
            }
        }
        if groups.len() > PRINTED {
            prose += &format!("\nand {} more groups", groups.len() - PRINTED);
        }
        let json = json!({
            "images": rows.len(),
            "features": rows.width(),
            "threshold": threshold,
            "group_count": groups.len(),
            "images_in_groups": images,
            "groups": groups.iter().take(LISTED).map(|group| json!({
                "label_conflict": self.is_contradictory(group),
                "images": group.rows.iter().map(|near| self.json_of(near)).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "skipped_images": self.collection.skipped,
            "files": self.outputs.all(),
        });
        print_result(self.common.json, &(prose + &self.wrote()), &json)?;
        Ok(Exit::Done)
    }

    fn is_contradictory(&self, group: &SimilarGroup) -> bool {
        let class = |near: &Nearest| self.collection.rows.class(near.row);
        group.rows.iter().any(|near| class(near) != class(&group.rows[0]))
    }

    fn json_of(&self, near: &Nearest) -> Value {
        let rows = &self.collection.rows;
        json!({ "file": rows.names().files[near.row], "row": near.row, "class": rows.class(near.row), "similarity": near.similarity.clamp(-1.0, 1.0) })
    }

    /// Writes the page and the sheet of some of `count` queries or groups, of which the first `listed` are known.
    fn write_pictures(
        &self,
        title: &str,
        first: &str,
        count: usize,
        listed: usize,
        what: &str,
        shown: &dyn Fn(usize) -> SimilarImages,
    ) -> anyhow::Result<()> {
        let some = |most: usize| {
            let shown_count = listed.min(most);
            (0..shown_count).map(|number| shown(number * listed / shown_count)).collect::<Vec<_>>()
        };
        if let Some(path) = &self.outputs.html {
            let rows = some(ON_PAGE);
            let part = if rows.len() < count {
                format!(" Of {count} {what}, {} are shown.", rows.len())
            } else {
                String::new()
            };
            let text = format!(
                "Similarity is the cosine of two images' features: 1 is the same direction, 0 has nothing in common. Among {} \
                 images, all were compared.{part}",
                self.collection.rows.len()
            );
            let data = without_secrets(self.args.collection.data.as_deref().unwrap_or_default());
            similar_page(title, &data, text, &rows).write(path).map_err(Error::from)?;
        }
        if let Some(path) = &self.outputs.png {
            similar_sheet(first, &some(ON_SHEET)).save_png(path).map_err(Error::from)?;
        }
        Ok(())
    }

    /// A query and its neighbors.
    fn shown(&self, found: &Found, given: Option<&Given>) -> SimilarImages {
        let query = match given {
            None => self.image(found.query, "query".into()),
            Some(given) => {
                let (source, sample) = &given.sources[found.query];
                SimilarImage::of(source.as_ref(), *sample, "query".into())
            }
        };
        let beside = found.neighbors.iter().take(BESIDE).map(|near| self.image(near.row, self.note(near)));
        let more = found.neighbors.len().saturating_sub(BESIDE);
        SimilarImages { caption: query.name.clone(), images: std::iter::once(query).chain(beside).collect(), more }
    }

    fn shown_group(&self, group: &SimilarGroup) -> SimilarImages {
        let conflict = if self.is_contradictory(group) { ", in different classes" } else { "" };
        let images = group.rows.iter().take(BESIDE).map(|near| self.image(near.row, self.note(near))).collect();
        let more = group.rows.len().saturating_sub(BESIDE);
        SimilarImages { caption: format!("{} images{conflict}", group.rows.len()), images, more }
    }

    fn image(&self, row: usize, note: String) -> SimilarImage {
        let source = self.collection.source.as_ref().expect("pictures need --data");
        let sample = self.collection.rows.sample(row).expect("the rows were found in --data");
        SimilarImage::of(source.as_ref(), sample, note)
    }

    fn note(&self, near: &Nearest) -> String {
        let class = self.collection.rows.class(near.row).map(|class| format!(" · {class}"));
        similarity(near) + &class.unwrap_or_default()
    }

    fn wrote(&self) -> String {
        self.outputs.all().iter().map(|path| format!("\nwrote {}", path.display())).collect()
    }
}

/// A cosine with the digits that rounding leaves.
fn similarity(near: &Nearest) -> String {
    format!("{:.4}", near.similarity.clamp(-1.0, 1.0))
}
