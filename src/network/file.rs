//! The map file.
//!
//! ```text
//! "VIAFLUXM"  format u32  length u64 of the content
//! content: sections, each  name [u8; 4]  length u64  bytes
//! BLAKE3 of all before, 32 bytes
//! ```
//!
//! Numbers are little-endian. Sections are flat arrays in the order of `SECTIONS`. Neighbours, distances along the
//! shapes and the spatial index are not stored: they are derived on loading, the same on every platform. The map's
//! version is made of BLAKE3 over the content.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::graph::{NONE, Parts, Scale, cumulative_mm};
use super::*;

/// First bytes of every map file.
const MAGIC: &[u8; 8] = b"VIAFLUXM";
/// Format of the file; files of another one are refused.
pub const FORMAT: u32 = 1;
/// Sections in their order.
const SECTIONS: [&[u8; 4]; 8] = [
    b"NODE", b"SEGM", b"SHPO", b"SHPE", b"NAME", b"LINK", b"BANS", b"VIAS",
];
const HEAD: usize = 8 + 4 + 8;
const SUM: usize = 32;

/// Why a map file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MapFileError {
    /// The file cannot be opened, read or written.
    #[error("map {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The first bytes are not those of a map.
    #[error("this is not a viaflux map; make one with `viaflux map build FILE.osm.pbf -o FILE`")]
    NotAMap,
    /// The map was made by another version of the program.
    #[error("the map has format {found}, this program reads format {FORMAT}; build the map again")]
    Format {
        /// The file's format.
        found: u32,
    },
    /// The file is shorter than it says.
    #[error("the map is truncated: {found} bytes instead of {expected}; copy or build it again")]
    Truncated {
        /// Bytes there should be.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The content is not what was written.
    #[error("the map is damaged: its checksum does not match; copy or build it again")]
    Checksum,
    /// The checksum is right and the content is not: a fault of the program that wrote it.
    #[error("the map's section {section} is invalid: {what}; build the map again and report this")]
    Invalid {
        /// Name of the section.
        section: String,
        /// What is wrong.
        what: String,
    },
    /// An error in the file of this name.
    #[error("map {}: {source}", path.display())]
    In {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<MapFileError>,
    },
}

/// 16 hex digits of BLAKE3 over the content.
pub(super) fn version_of(parts: &Parts) -> String {
    version_of_content(&content(parts))
}

fn version_of_content(content: &[u8]) -> String {
    blake3::hash(content).to_hex()[..16].to_owned()
}

impl Network {
    /// Writes the map file.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        let content = content(self.parts());
        let mut head = Vec::with_capacity(HEAD);
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&FORMAT.to_le_bytes());
        head.extend_from_slice(&(content.len() as u64).to_le_bytes());
        let mut sum = blake3::Hasher::new();
        sum.update(&head).update(&content);
        out.write_all(&head)?;
        out.write_all(&content)?;
        out.write_all(sum.finalize().as_bytes())?;
        out.flush()
    }

    /// Reads a map file's bytes.
    ///
    /// # Errors
    /// [`MapFileError`]: not a map, another format, truncated, damaged or invalid.
    pub fn read(bytes: &[u8]) -> Result<Network, MapFileError> {
        let known = bytes.len().min(MAGIC.len());
        if known == 0 || bytes[..known] != MAGIC[..known] {
            return Err(MapFileError::NotAMap);
        }
        let found = bytes.len() as u64;
        let truncated = |expected: u64| MapFileError::Truncated { expected, found };
        let (head, rest) = bytes
            .split_at_checked(HEAD)
            .ok_or(truncated((HEAD + SUM) as u64))?;
        let format = u32::from_le_bytes(array(&head[8..12]));
        if format != FORMAT {
            return Err(MapFileError::Format { found: format });
        }
        let length = u64::from_le_bytes(array(&head[12..20]));
        let expected = length.saturating_add((HEAD + SUM) as u64);
        if found < expected {
            return Err(truncated(expected));
        }
        if found > expected {
            return Err(MapFileError::Checksum);
        }
        let (content, sum) = rest.split_at(rest.len() - SUM);
        if blake3::hash(&bytes[..bytes.len() - SUM]).as_bytes() != sum {
            return Err(MapFileError::Checksum);
        }
        let parts = parse(content)?;
        Ok(Network::from_parts(parts, version_of_content(content)))
    }

    /// Reads a map file.
    ///
    /// # Errors
    /// [`MapFileError`], which names the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Network, MapFileError> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(|source| MapFileError::Io {
            path: path.to_owned(),
            source,
        })?;
        Network::read(&bytes).map_err(|e| MapFileError::In {
            path: path.to_owned(),
            source: Box::new(e),
        })
    }

    /// Writes the map to a file beside `path`, brings it to disk and renames it, so that a reader never sees half a map.
    ///
    /// # Errors
    /// [`MapFileError::Io`], which names the file.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), MapFileError> {
        let path = path.as_ref();
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let part = path.with_file_name(name);
        let write = || -> io::Result<()> {
            let mut file = File::create(&part)?;
            self.write(io::BufWriter::new(&mut file))?;
            file.sync_all()?;
            fs::rename(&part, path)
        };
        write().map_err(|source| {
            // The half-written file is of no use; that it cannot be removed either adds nothing to the error.
            let _ = fs::remove_file(&part);
            MapFileError::Io {
                path: path.to_owned(),
                source,
            }
        })
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the slice has this length")
}

/// Appends numbers to a section.
#[derive(Default)]
struct Section(Vec<u8>);

impl Section {
    fn u32(&mut self, v: u32) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }

    fn i64(&mut self, v: i64) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }

    fn position(&mut self, p: Position) {
        self.0.extend_from_slice(&p.lat_e7().to_le_bytes());
        self.0.extend_from_slice(&p.lon_e7().to_le_bytes());
    }

    fn list(&mut self, list: &[u32]) {
        self.u32(list.len() as u32);
        for &v in list {
            self.u32(v);
        }
    }
}

fn content(parts: &Parts) -> Vec<u8> {
    let mut sections: [Section; 8] = Default::default();
    let [node, segm, shpo, shpe, name, link, bans, vias] = &mut sections;
    for &p in &parts.nodes {
        node.position(p);
    }
    for (i, s) in parts.segments.iter().enumerate() {
        segm.i64(s.key.way);
        segm.i64(s.key.from_node);
        segm.i64(s.key.to_node);
        for v in [
            s.from,
            s.to,
            s.length_mm,
            s.free_flow,
            s.twin.unwrap_or(NONE),
            s.link,
            parts.segment_shape[i],
            parts.segment_name[i],
        ] {
            segm.u32(v);
        }
        segm.0.extend_from_slice(&s.flags.0.to_le_bytes());
        segm.0
            .extend_from_slice(&[s.class as u8, s.limit_kph, s.lanes, 0]);
    }
    for &offset in &parts.shape_offsets {
        shpo.u32(offset);
    }
    for (&p, &id) in parts.positions.iter().zip(&parts.osm_nodes) {
        shpe.position(p);
        shpe.i64(id);
    }
    for n in &parts.names {
        name.u32(n.len() as u32);
        name.0.extend_from_slice(n.as_bytes());
    }
    for l in &parts.links {
        link.list(&l.segments);
    }
    for &(from, to) in &parts.bans {
        bans.u32(from);
        bans.u32(to);
    }
    for v in &parts.via_bans {
        vias.list(v);
    }
    let mut out = Vec::with_capacity(sections.iter().map(|s| s.0.len() + 12).sum());
    for (tag, section) in SECTIONS.iter().zip(&sections) {
        out.extend_from_slice(*tag);
        out.extend_from_slice(&(section.0.len() as u64).to_le_bytes());
        out.extend_from_slice(&section.0);
    }
    out
}

/// Bytes of a segment in the file.
const SEGMENT_BYTES: usize = 3 * 8 + 8 * 4 + 2 + 4;

/// Takes numbers off a section.
struct Cursor<'a> {
    section: &'static str,
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn invalid(&self, what: impl Into<String>) -> MapFileError {
        MapFileError::Invalid {
            section: self.section.to_owned(),
            what: what.into(),
        }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], MapFileError> {
        let (head, rest) = self
            .bytes
            .split_at_checked(n)
            .ok_or_else(|| self.invalid("it ends too early"))?;
        self.bytes = rest;
        Ok(head)
    }

    fn u32(&mut self) -> Result<u32, MapFileError> {
        Ok(u32::from_le_bytes(array(self.take(4)?)))
    }

    /// A number below `end`.
    fn index(&mut self, end: usize) -> Result<u32, MapFileError> {
        let v = self.u32()?;
        if (v as usize) < end {
            Ok(v)
        } else {
            Err(self.invalid(format!("{v} is not below {end}")))
        }
    }

    fn i64(&mut self) -> Result<i64, MapFileError> {
        Ok(i64::from_le_bytes(array(self.take(8)?)))
    }

    fn position(&mut self) -> Result<Position, MapFileError> {
        let (lat, lon) = (self.u32()? as i32, self.u32()? as i32);
        Position::from_degrees(f64::from(lat) / 1e7, f64::from(lon) / 1e7)
            .map_err(|_| self.invalid(format!("{lat}, {lon} is no position")))
    }

    fn list(&mut self, end: usize) -> Result<Vec<u32>, MapFileError> {
        let n = self.u32()? as usize;
        if n > self.bytes.len() / 4 {
            return Err(self.invalid("a list is longer than the section"));
        }
        (0..n).map(|_| self.index(end)).collect()
    }

    /// The number of records of `size` bytes.
    fn count(&self, size: usize) -> Result<usize, MapFileError> {
        if self.bytes.len().is_multiple_of(size) {
            Ok(self.bytes.len() / size)
        } else {
            Err(self.invalid(format!("its length is no multiple of {size}")))
        }
    }
}

fn parse(content: &[u8]) -> Result<Parts, MapFileError> {
    let mut rest = Cursor {
        section: "table",
        bytes: content,
    };
    let mut sections = Vec::with_capacity(SECTIONS.len());
    for tag in SECTIONS {
        let section = std::str::from_utf8(tag).expect("section names are ASCII");
        if rest.take(4)? != tag {
            return Err(rest.invalid(format!("section {section} is missing")));
        }
        let length = usize::try_from(rest.i64()?).map_err(|_| rest.invalid("a length is out of range"))?;
        sections.push(Cursor {
            section,
            bytes: rest.take(length)?,
        });
    }
    let mut sections = sections.into_iter();
    let mut next = || sections.next().expect("as many as names");
    let (mut node, mut segm, mut shpo, mut shpe) = (next(), next(), next(), next());
    let (mut name, mut link, mut bans, mut vias) = (next(), next(), next(), next());

    let mut parts = Parts::default();
    let nodes = node.count(8)?;
    parts.nodes = (0..nodes).map(|_| node.position()).collect::<Result<_, _>>()?;

    let points = shpe.count(16)?;
    for _ in 0..points {
        parts.positions.push(shpe.position()?);
        parts.osm_nodes.push(shpe.i64()?);
    }
    let offsets = shpo.count(4)?;
    parts.shape_offsets = (0..offsets).map(|_| shpo.u32()).collect::<Result<_, _>>()?;
    let rises = parts
        .shape_offsets
        .windows(2)
        .all(|w| w[1].checked_sub(w[0]).is_some_and(|n| n >= 2));
    if parts.shape_offsets.first() != Some(&0)
        || parts.shape_offsets.last().map(|&l| l as usize) != Some(points)
        || !rises
    {
        return Err(shpo.invalid("offsets do not rise from 0 to the number of points"));
    }
    while !name.bytes.is_empty() {
        let n = name.u32()? as usize;
        let text = std::str::from_utf8(name.take(n)?).map_err(|_| name.invalid("a name is not UTF-8"))?;
        parts.names.push(text.to_owned());
    }

    let count = segm.count(SEGMENT_BYTES)?;
    while !link.bytes.is_empty() {
        let segments = link.list(count)?;
        if segments.is_empty() {
            return Err(link.invalid("a link has no segments"));
        }
        parts.links.push(Link {
            segments,
            length_mm: 0,
        });
    }
    for _ in 0..count {
        let key = SegmentKey {
            way: segm.i64()?,
            from_node: segm.i64()?,
            to_node: segm.i64()?,
        };
        let (from, to) = (segm.index(nodes)?, segm.index(nodes)?);
        let (length_mm, free_flow) = (segm.u32()?, segm.u32()?);
        let twin = match segm.u32()? {
            NONE => None,
            t if (t as usize) < count => Some(t),
            t => return Err(segm.invalid(format!("twin {t} is not below {count}"))),
        };
        let link = segm.index(parts.links.len())?;
        parts.segment_shape.push(segm.index(offsets - 1)?);
        let name = segm.u32()?;
        if name != NONE && name as usize >= parts.names.len() {
            return Err(segm.invalid(format!("name {name} does not exist")));
        }
        parts.segment_name.push(name);
        let flags = SegmentFlags(u16::from_le_bytes(array(segm.take(2)?)));
        let [class, limit_kph, lanes, _] = array::<4>(segm.take(4)?);
        let class = *RoadClass::ALL
            .get(class as usize)
            .ok_or_else(|| segm.invalid(format!("road class {class} does not exist")))?;
        if length_mm == 0 || free_flow == 0 || lanes == 0 {
            return Err(segm.invalid(format!("segment {key} has no length, speed or lane")));
        }
        parts.segments.push(Segment {
            key,
            from,
            to,
            length_mm,
            class,
            flags,
            limit_kph,
            free_flow,
            lanes,
            twin,
            link,
        });
    }
    if !parts.segments.is_sorted_by_key(|s| (s.from, s.key)) {
        return Err(segm.invalid("segments are out of order"));
    }
    // Offsets along shapes and lengths of segments are subtracted from one another later.
    let scale = Scale::default();
    let ends: Vec<u32> = parts
        .shape_offsets
        .windows(2)
        .map(|w| {
            let along = cumulative_mm(&scale, &parts.positions[w[0] as usize..w[1] as usize]);
            along[along.len() - 1]
        })
        .collect();
    for (s, &shape) in parts.segments.iter().zip(&parts.segment_shape) {
        if s.length_mm != ends[shape as usize] {
            return Err(segm.invalid(format!("the length of {} is not that of its shape", s.key)));
        }
    }
    for l in &mut parts.links {
        l.length_mm = l
            .segments
            .iter()
            .map(|&s| u64::from(parts.segments[s as usize].length_mm))
            .sum();
    }
    for _ in 0..bans.count(8)? {
        parts.bans.push((bans.index(count)?, bans.index(count)?));
    }
    while !vias.bytes.is_empty() {
        let ban = vias.list(count)?;
        if ban.len() < 3 {
            return Err(vias.invalid("a sequence has fewer than three segments"));
        }
        parts.via_bans.push(ban);
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::super::drawn::{build, draw, restrict};
    use super::*;

    fn network() -> Network {
        let picture = "
            A . B . C
            . . . . .
            D . E . F";
        let mut osm = draw(
            picture,
            &[
                "AB name=长安南路",
                "BC oneway=yes",
                "BE",
                "DE name=B",
                "EF highway=service",
            ],
        );
        restrict(&mut osm, 1, Err(&[3]), 4, "restriction=no_u_turn");
        restrict(&mut osm, 3, Ok('E'), 5, "restriction=no_left_turn");
        build(&osm).0
    }

    fn bytes() -> Vec<u8> {
        let mut bytes = Vec::new();
        network().write(&mut bytes).unwrap();
        bytes
    }

    /// The file with its content changed and the checksum made right again.
    fn resealed(change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut b = bytes();
        b.truncate(b.len() - SUM);
        change(&mut b);
        let sum = blake3::hash(&b);
        b.extend_from_slice(sum.as_bytes());
        b
    }

    #[test]
    fn offsets_of_shapes_that_fall_are_refused() {
        for offset in [1_u32, u32::MAX - 1, u32::MAX] {
            let file = resealed(|b| {
                let at = b.windows(4).position(|w| w == b"SHPO").unwrap() + 12 + 4;
                b[at..at + 4].copy_from_slice(&offset.to_le_bytes());
            });
            let error = Network::read(&file).unwrap_err().to_string();
            assert!(error.contains("offsets do not rise"), "{error}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (a, b) = (network(), Network::read(&bytes()).unwrap());
        assert_eq!(a.parts(), b.parts());
        assert!(!a.parts().bans.is_empty() && !a.parts().via_bans.is_empty());
        assert_eq!(a.version(), b.version());
        assert_eq!(a.bounds(), b.bounds());
        assert_eq!(b.name(b.segments_of_way(1)[0]), Some("长安南路"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("city.map");
        a.save(&path).unwrap();
        a.save(&path).unwrap();
        assert_eq!(Network::load(&path).unwrap().parts(), a.parts());
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no half-written file stays"
        );
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let good = bytes();
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 0x40;
            let error = Network::read(&bad).unwrap_err();
            let expected = match i {
                0..8 => matches!(error, MapFileError::NotAMap),
                8..12 => matches!(error, MapFileError::Format { .. }),
                12..20 => matches!(error, MapFileError::Truncated { .. } | MapFileError::Checksum),
                _ => matches!(error, MapFileError::Checksum),
            };
            assert!(expected, "byte {i}: {error}");
        }
    }

    #[test]
    fn every_truncation_is_noticed() {
        let good = bytes();
        for n in 0..good.len() {
            match Network::read(&good[..n]).unwrap_err() {
                MapFileError::NotAMap => assert_eq!(n, 0),
                MapFileError::Truncated { expected, found } => {
                    assert_eq!(found, n as u64);
                    assert!(expected > found);
                }
                other => panic!("{n} bytes: {other}"),
            }
        }
        let mut longer = good;
        longer.push(0);
        assert!(matches!(Network::read(&longer), Err(MapFileError::Checksum)));
    }

    #[test]
    fn content_out_of_range_is_an_error_and_no_panic() {
        // Whatever byte of the content is wrong under a right checksum: an error, or a map that can be used.
        let length = bytes().len() - SUM;
        let mut refused = 0;
        for i in HEAD..length {
            for value in [0x00, 0x7F, 0xFF] {
                let read = Network::read(&resealed(|b| b[i] = value));
                refused += usize::from(read.is_err());
                if let Ok(n) = read {
                    let mut out = Vec::new();
                    n.candidates(n.bounds().0, 1_000_000, &mut out);
                    for s in 0..n.segments().len() as u32 {
                        n.position_at(s, 10);
                        n.name(s);
                        n.link_key(n.segment(s).link);
                    }
                }
            }
        }
        assert!(refused > 500, "{refused}");
    }

    #[test]
    fn errors_name_the_file_and_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("city.map");
        let told = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            Network::load(&path).unwrap_err().to_string()
        };
        let message = told(b"GIF89a");
        assert!(
            message.contains("city.map") && message.contains("viaflux map build"),
            "{message}"
        );
        let mut other = bytes();
        other[8] = 9;
        assert!(told(&other).contains("format 9"));
        assert!(told(&bytes()[..100]).contains("truncated: 100 bytes"));
        fs::remove_file(&path).unwrap();
        assert!(Network::load(&path).unwrap_err().to_string().contains("city.map"));
        assert!(network().save(dir.path().join("no/such/place")).is_err());
    }
}
