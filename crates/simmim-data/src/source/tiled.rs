//! Large pictures that are cut into tiles, which are the samples.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{PassedOver, PassedOverReason, Source};
use crate::decode::Pieces;
use crate::encoded::Encoded;
use crate::error::{Error, Result};
use crate::image::{Image, Pixels, Rectangle};
use crate::rng::{Purpose, permutation, rng};

/// How pictures are cut into tiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tiling {
    /// The side of the square tiles, in pixels.
    pub size: usize,
    /// The distance between neighbors, in pixels; tiles overlap where it is less than their side.
    pub stride: usize,
    /// The least share of a tile, 0 to 1, that is content: neither nearly black (below 0.05 in all channels, where white
    /// is 1) nor nearly white (above 0.9 in all channels), as what surrounds tissue on a slide or a satellite's swath is.
    pub least_content: f64,
    /// The most tiles of one picture; which ones is drawn by `seed`.
    pub most_per_picture: Option<usize>,
    /// The seed of that draw.
    pub seed: u64,
}

/// Values below the first are nearly black, and above the second nearly white.
const CONTENT: [f32; 2] = [0.05, 0.9];

/// The tiles of the pictures of another source.
///
/// The tiles of a picture lie in a grid that starts at its upper left corner; what the grid leaves free at the right and
/// at the bottom is covered by tiles that are moved back to the border. A picture that is smaller than a tile is one tile
/// of its own size. Tiles have the class of their picture and its name with `#x,y`, the place of their upper left corner.
/// A picture that cannot be read stays a sample, so that it is counted as unreadable; so does one of more than four million
/// tiles.
///
/// A TIFF file that is stored in tiles or strips, and not in an archive, is never read in whole: memory and time are those
/// of the parts that a tile touches. Other pictures are decoded in whole; the last ones are kept, at most 512 MiB of them.
pub struct Tiled {
    source: Arc<dyn Source>,
    tiles: Vec<Tile>,
    passed_over: PassedOver,
    decoded: Mutex<VecDeque<(usize, Arc<Image>)>>,
}

/// A part of a picture.
#[derive(Clone, Copy, Debug)]
struct Tile {
    picture: usize,
    part: Part,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Of(Rectangle),
    /// The picture could not be read when tiles were listed.
    Unread,
    /// The picture has more than [`MOST_TILES`].
    TooMany,
}

/// What tiles a picture has.
#[derive(Clone)]
enum Listed {
    Tiles(Vec<Rectangle>),
    Unread,
    TooMany,
}

/// A picture of more tiles counts as unreadable: a header may claim any size. A slide of 500,000² pixels in tiles of 256 has
/// fewer.
const MOST_TILES: usize = 1 << 22;

/// The most memory of decoded pictures that is kept, in bytes.
const MOST_KEPT: usize = 512 << 20;

impl Tiled {
    /// Lists the tiles of all pictures of `source`, on `workers` threads and at least one. The list does not depend on the
    /// number of threads.
    ///
    /// Only headers are read, unless tiles are chosen by their content: then every picture is.
    ///
    /// # Errors
    ///
    /// [`Error::NoTiles`] if no picture has a tile with enough content.
    ///
    /// # Panics
    ///
    /// Panics if size or stride is 0.
    pub fn new(source: Arc<dyn Source>, tiling: Tiling, workers: usize) -> Result<Self> {
        assert!(tiling.size > 0 && tiling.stride > 0, "tiles have a size and a distance");
        let (next, lists) = (AtomicUsize::new(0), Mutex::new(vec![Listed::Unread; source.len()]));
        let list = || {
            while let Some(list) = {
                let picture = next.fetch_add(1, Ordering::Relaxed);
                (picture < source.len()).then(|| (picture, listed(&*source, picture, tiling)))
            } {
                let (picture, parts) = list;
                lists.lock().unwrap_or_else(PoisonError::into_inner)[picture] = parts;
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..workers {
                // without a thread, the others list its pictures
                let _ = std::thread::Builder::new().spawn_scoped(scope, list);
            }
            list();
        });
        let lists = lists.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (mut tiles, mut passed_over) = (Vec::new(), source.passed_over().clone());
        for (picture, parts) in lists.into_iter().enumerate() {
            match parts {
                Listed::Tiles(parts) if parts.is_empty() => {
                    passed_over.add(source.name(picture), PassedOverReason::NoContent);
                }
                Listed::Tiles(parts) => {
                    tiles.extend(parts.into_iter().map(|part| Tile { picture, part: Part::Of(part) }));
                }
                Listed::Unread => tiles.push(Tile { picture, part: Part::Unread }),
                Listed::TooMany => tiles.push(Tile { picture, part: Part::TooMany }),
            }
        }
        if tiles.is_empty() {
            return Err(Error::NoTiles { pictures: source.len(), least_content: tiling.least_content });
        }
        Ok(Self { source, tiles, passed_over, decoded: Mutex::default() })
    }

    /// The tile with the number `index`: the picture that it is cut from and its upper edge, left edge, height and width.
    #[must_use]
    pub fn place(&self, index: usize) -> (usize, Option<[usize; 4]>) {
        let Tile { picture, part } = self.tiles[index];
        match part {
            Part::Of(Rectangle { top, left, height, width }) => (picture, Some([top, left, height, width])),
            Part::Unread | Part::TooMany => (picture, None),
        }
    }

    /// The pictures that tiles are cut from.
    #[must_use]
    pub fn pictures(&self) -> &dyn Source {
        &*self.source
    }

    /// Height and width of a picture, and a small picture of it as [`thumbnail`](crate::thumbnail) makes it. A large TIFF file is
    /// not read at once.
    ///
    /// # Errors
    ///
    /// Those of [`Source::get`].
    ///
    /// # Panics
    ///
    /// Panics if `most_px` is 0.
    pub fn overview(&self, picture: usize, most_px: usize) -> Result<([usize; 2], Image)> {
        let mut pieces = self.source.encoded(picture)?.pieces()?;
        Ok((pieces.size(), pieces.overview(most_px)?))
    }

    /// The error of a picture that could not be read when tiles were listed. If it can be now, it is left out all the same: its
    /// tiles would change the numbers of all others.
    fn why_unread(&self, picture: usize) -> Error {
        match self.source.encoded(picture).and_then(Encoded::pieces) {
            Err(error) => error,
            Ok(_) => {
                let reason = "it could not be read when its tiles were listed".to_owned();
                Error::Decode { name: self.source.name(picture), reason }
            }
        }
    }

    /// The part of a picture.
    fn cut(&self, picture: usize, part: Rectangle) -> Result<Image> {
        let kept = |decoded: &VecDeque<(usize, Arc<Image>)>| {
            decoded.iter().find(|(of, _)| *of == picture).map(|(_, image)| Arc::clone(image))
        };
        let lock = || self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = kept(&lock()) {
            return Ok(image.cut(part));
        }
        let mut pieces = self.source.encoded(picture)?.pieces()?;
        let tile = pieces.cut(part)?;
        if let Pieces::Whole(image) = pieces {
            let mut decoded = lock();
            // another thread may have decoded it at the same time
            if kept(&decoded).is_none() {
                decoded.push_back((picture, Arc::new(image)));
            }
            while decoded.iter().map(|(_, image)| bytes(image)).sum::<usize>() > MOST_KEPT {
                decoded.pop_front();
            }
        }
        Ok(tile)
    }
}

impl Source for Tiled {
    fn len(&self) -> usize {
        self.tiles.len()
    }

    fn classes(&self) -> &[String] {
        self.source.classes()
    }

    fn name(&self, index: usize) -> String {
        let Tile { picture, part } = self.tiles[index];
        let name = self.source.name(picture);
        match part {
            Part::Of(Rectangle { top, left, .. }) => format!("{name}#{left},{top}"),
            Part::Unread | Part::TooMany => name,
        }
    }

    fn encoded(&self, index: usize) -> Result<Encoded> {
        let Tile { picture, part } = self.tiles[index];
        match part {
            Part::Of(part) => Ok(Encoded::pixels(self.cut(picture, part)?, self.name(index))),
            Part::Unread => Err(self.why_unread(picture)),
            Part::TooMany => Err(Error::TooManyTiles { name: self.name(index), limit: MOST_TILES }),
        }
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.source.label(self.tiles[index].picture)
    }

    fn labels(&self, index: usize) -> Vec<usize> {
        self.source.labels(self.tiles[index].picture)
    }

    fn is_labeled(&self, index: usize) -> bool {
        self.source.is_labeled(self.tiles[index].picture)
    }

    fn passed_over(&self) -> &PassedOver {
        &self.passed_over
    }

    fn why_unlabeled(&self) -> Option<Error> {
        self.source.why_unlabeled()
    }
}

fn listed(source: &dyn Source, picture: usize, tiling: Tiling) -> Listed {
    match parts(source, picture, tiling) {
        Ok(Some(parts)) => Listed::Tiles(parts),
        Ok(None) => Listed::TooMany,
        Err(_) => Listed::Unread,
    }
}

/// The tiles of a picture; `None` if there are too many.
fn parts(source: &dyn Source, picture: usize, tiling: Tiling) -> Result<Option<Vec<Rectangle>>> {
    let encoded = source.encoded(picture)?;
    let mut parts;
    if tiling.least_content > 0.0 {
        let mut pieces = encoded.pieces()?;
        let Some(grid) = grid(pieces.size(), tiling) else { return Ok(None) };
        parts = Vec::new();
        for part in grid {
            if content(&pieces.cut(part)?) >= tiling.least_content {
                parts.push(part);
            }
        }
    } else {
        let Some(grid) = grid(encoded.size()?, tiling) else { return Ok(None) };
        parts = grid;
    }
    if let Some(most) = tiling.most_per_picture.filter(|most| *most < parts.len()) {
        let mut drawn = permutation(&mut rng(tiling.seed, Purpose::Tile, 0, picture as u64), parts.len());
        drawn.truncate(most);
        drawn.sort_unstable();
        parts = drawn.into_iter().map(|place| parts[place]).collect();
    }
    Ok(Some(parts))
}

/// All tiles of a picture of this height and width, row by row; `None` if there are more than [`MOST_TILES`].
fn grid([height, width]: [usize; 2], tiling: Tiling) -> Option<Vec<Rectangle>> {
    let starts = |length: usize| {
        let last = length.saturating_sub(tiling.size);
        let is_left_free = !last.is_multiple_of(tiling.stride);
        (0..=last).step_by(tiling.stride).chain(is_left_free.then_some(last))
    };
    if starts(height).count().saturating_mul(starts(width).count()) > MOST_TILES {
        return None;
    }
    let (tile_height, tile_width) = (tiling.size.min(height), tiling.size.min(width));
    let row =
        |top: usize| starts(width).map(move |left| Rectangle { top, left, height: tile_height, width: tile_width });
    Some(starts(height).flat_map(row).collect())
}

/// The share of pixels that are content.
fn content(image: &Image) -> f64 {
    fn share<T: Copy>(pixels: &[T], channels: usize, value: impl Fn(T) -> f32) -> f64 {
        let is_empty = |pixel: &&[T]| {
            let all = |is: &dyn Fn(f32) -> bool| pixel.iter().all(|of| is(value(*of)));
            all(&|value| value < CONTENT[0]) || all(&|value| value > CONTENT[1])
        };
        let empty = pixels.chunks_exact(channels).filter(is_empty).count();
        1.0 - empty as f64 / (pixels.len() / channels).max(1) as f64
    }
    match &image.pixels {
        Pixels::U8(pixels) => share(pixels, image.channels, |value| f32::from(value) / 255.0),
        Pixels::F32(pixels) => share(pixels, image.channels, |value| value),
    }
}

fn bytes(image: &Image) -> usize {
    match &image.pixels {
        Pixels::U8(pixels) => pixels.len(),
        Pixels::F32(pixels) => pixels.len() * size_of::<f32>(),
    }
}
