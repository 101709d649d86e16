//! What the builder needs of OpenStreetMap: nodes, ways and turn restrictions, from a file or made by the simulator.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
#[cfg(feature = "service")]
use std::path::PathBuf;

/// A node that a way uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OsmNode {
    /// Latitude in degrees.
    pub lat: f64,
    /// Longitude in degrees.
    pub lon: f64,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// A way with a `highway` tag.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OsmWay {
    /// OSM id.
    pub id: i64,
    /// Node ids in order.
    pub nodes: Vec<i64>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// A relation `type=restriction`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OsmRestriction {
    /// OSM id.
    pub id: i64,
    /// Way driven in on (`from`).
    pub from: i64,
    /// Node (`via`), if it is one.
    pub via_node: Option<i64>,
    /// Ways (`via`), in order, if they are ways.
    pub via_ways: Vec<i64>,
    /// Way driven out on (`to`).
    pub to: i64,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// An OpenStreetMap extract, reduced to what roads need.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OsmData {
    /// Nodes by id.
    pub nodes: BTreeMap<i64, OsmNode>,
    /// Ways in order of id.
    pub ways: Vec<OsmWay>,
    /// Turn restrictions in order of id.
    pub restrictions: Vec<OsmRestriction>,
}

impl OsmData {
    /// Sorts ways and restrictions by id and drops nodes that no way uses, so that equal extracts are equal data.
    pub fn normalise(&mut self) {
        self.ways
            .sort_by(|a, b| (a.id, &a.nodes, &a.tags).cmp(&(b.id, &b.nodes, &b.tags)));
        self.ways.dedup_by_key(|w| w.id);
        self.restrictions.sort_by(|a, b| {
            (a.id, a.from, a.to, &a.via_node, &a.via_ways).cmp(&(
                b.id,
                b.from,
                b.to,
                &b.via_node,
                &b.via_ways,
            ))
        });
        self.restrictions.dedup();
        let used: BTreeSet<i64> = self.ways.iter().flat_map(|w| w.nodes.iter().copied()).collect();
        self.nodes.retain(|id, _| used.contains(id));
    }
}

/// A member of a restriction relation.
#[cfg(feature = "service")]
#[derive(Clone, Debug, PartialEq)]
struct Member {
    way: bool,
    id: i64,
    role: String,
}

/// Most pairs of a `from` and a `to` way taken of one relation. Real ones have a handful; the square of a
/// relation's members does not fit in memory.
#[cfg(feature = "service")]
const PAIRS_MAX: usize = 256;

/// One restriction for each pair of a `from` and a `to` way (`no_entry` and `no_exit` may have several). A
/// relation with more than [`PAIRS_MAX`] of them is no restriction.
#[cfg(feature = "service")]
fn restrictions_of(id: i64, members: &[Member], tags: &BTreeMap<String, String>) -> Vec<OsmRestriction> {
    let ways = |role: &str| -> Vec<i64> {
        members
            .iter()
            .filter(|m| m.way && m.role == role)
            .map(|m| m.id)
            .collect()
    };
    let via_node = members.iter().find(|m| !m.way && m.role == "via").map(|m| m.id);
    let via_ways = if via_node.is_some() {
        Vec::new()
    } else {
        ways("via")
    };
    let mut out = Vec::new();
    let (froms, tos) = (ways("from"), ways("to"));
    if froms.len().saturating_mul(tos.len()) > PAIRS_MAX {
        return out;
    }
    for from in froms {
        for &to in &tos {
            out.push(OsmRestriction {
                id,
                from,
                via_node,
                via_ways: via_ways.clone(),
                to,
                tags: tags.clone(),
            });
        }
    }
    out
}

/// Whether a relation's tags make it a turn restriction.
#[cfg(feature = "service")]
fn is_restriction(tags: &BTreeMap<String, String>) -> bool {
    tags.get("type")
        .is_some_and(|t| t == "restriction" || t.starts_with("restriction:"))
}

/// Writes an extract as OSM XML: nodes, ways, restrictions, in order of id.
///
/// What [`OsmData::read_xml`] makes of it is equal to `osm`, if that is normalised and every way is a road.
///
/// # Errors
/// Those of the writer.
pub fn write_xml(osm: &OsmData, mut out: impl Write) -> io::Result<()> {
    writeln!(
        out,
        "<?xml version='1.0' encoding='UTF-8'?>\n<osm version=\"0.6\" generator=\"viaflux\">"
    )?;
    for (id, node) in &osm.nodes {
        write!(
            out,
            " <node id=\"{id}\" lat=\"{}\" lon=\"{}\"",
            node.lat, node.lon
        )?;
        if node.tags.is_empty() {
            writeln!(out, "/>")?;
        } else {
            writeln!(out, ">")?;
            write_tags(&mut out, &node.tags)?;
            writeln!(out, " </node>")?;
        }
    }
    for way in &osm.ways {
        writeln!(out, " <way id=\"{}\">", way.id)?;
        for node in &way.nodes {
            writeln!(out, "  <nd ref=\"{node}\"/>")?;
        }
        write_tags(&mut out, &way.tags)?;
        writeln!(out, " </way>")?;
    }
    for r in &osm.restrictions {
        writeln!(out, " <relation id=\"{}\">", r.id)?;
        writeln!(out, "  <member type=\"way\" ref=\"{}\" role=\"from\"/>", r.from)?;
        if let Some(node) = r.via_node {
            writeln!(out, "  <member type=\"node\" ref=\"{node}\" role=\"via\"/>")?;
        }
        for way in &r.via_ways {
            writeln!(out, "  <member type=\"way\" ref=\"{way}\" role=\"via\"/>")?;
        }
        writeln!(out, "  <member type=\"way\" ref=\"{}\" role=\"to\"/>", r.to)?;
        write_tags(&mut out, &r.tags)?;
        writeln!(out, " </relation>")?;
    }
    writeln!(out, "</osm>")?;
    out.flush()
}

fn write_tags(out: &mut impl Write, tags: &BTreeMap<String, String>) -> io::Result<()> {
    for (k, v) in tags {
        writeln!(out, "  <tag k=\"{}\" v=\"{}\"/>", escaped(k), escaped(v))?;
    }
    Ok(())
}

/// Text for an attribute in double quotes. Characters that XML cannot hold are left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' => out.push_str("&#9;"),
            '\n' => out.push_str("&#10;"),
            '\r' => out.push_str("&#13;"),
            c if c < ' ' || c == '\u{FFFE}' || c == '\u{FFFF}' => {}
            c => out.push(c),
        }
    }
    out
}

/// Why an extract cannot be read.
#[cfg(feature = "service")]
#[derive(Debug, thiserror::Error)]
pub enum OsmError {
    /// The file cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file does not begin as OSM PBF does.
    #[error("{} is not an OSM PBF file (it does not begin with an OSMHeader block)", path.display())]
    NotPbf {
        /// The file.
        path: PathBuf,
    },
    /// The file begins well and then breaks off or is damaged.
    #[error("{} is a damaged or truncated OSM PBF file: {what}; fetch it again", path.display())]
    Pbf {
        /// The file.
        path: PathBuf,
        /// What the decoder says.
        what: String,
    },
    /// The text is not well-formed OSM XML.
    #[error("OSM XML, byte {position}: {what}")]
    Xml {
        /// Place in the text.
        position: u64,
        /// What is wrong there.
        what: String,
    },
    /// The file is not well-formed OSM XML.
    #[error("{} is not readable: {source}", path.display())]
    XmlFile {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<OsmError>,
    },
}

#[cfg(feature = "service")]
mod read {
    use std::fs::File;
    use std::io::{BufRead, BufReader, Read};
    use std::panic::{self, AssertUnwindSafe};
    use std::path::Path;

    use osmpbf::{Element, ElementReader, RelMemberType};
    use quick_xml::events::{BytesStart, Event};
    use quick_xml::{Reader, XmlVersion};

    use super::super::tags::{self, Tags};
    use super::*;

    impl OsmData {
        /// Reads an extract, PBF or XML, whichever the file's first byte says.
        ///
        /// # Errors
        /// [`OsmError`], which names the file.
        pub fn read(path: impl AsRef<Path>) -> Result<OsmData, OsmError> {
            let path = path.as_ref();
            let io = |source| OsmError::Io {
                path: path.to_owned(),
                source,
            };
            let mut input = BufReader::new(File::open(path).map_err(io)?);
            let start = input.fill_buf().map_err(io)?;
            // '<', or a byte order mark before it; a PBF file begins with the zero bytes of a small length.
            if matches!(start.first(), Some(b'<' | 0xEF | b' ' | b'\n' | b'\r' | b'\t')) {
                OsmData::read_xml(input).map_err(|e| OsmError::XmlFile {
                    path: path.to_owned(),
                    source: Box::new(e),
                })
            } else {
                OsmData::read_pbf(path)
            }
        }

        /// Reads the roads, their nodes and the turn restrictions of an OSM PBF file.
        ///
        /// Kept are ways whose `highway` value is one of roads, the nodes they use (with the tags that the build
        /// reads) and relations `type=restriction`. Blocks are decoded in parallel; the result does not depend on it.
        ///
        /// # Errors
        /// [`OsmError`], which names the file.
        pub fn read_pbf(path: impl AsRef<Path>) -> Result<OsmData, OsmError> {
            let path = path.as_ref();
            let io = |source| OsmError::Io {
                path: path.to_owned(),
                source,
            };
            let pbf = |e: osmpbf::Error| OsmError::Pbf {
                path: path.to_owned(),
                what: e.to_string(),
            };

            let mut head = [0u8; 15];
            File::open(path)
                .map_err(io)?
                .read_exact(&mut head)
                .map_err(|e| match e.kind() {
                    io::ErrorKind::UnexpectedEof => OsmError::NotPbf {
                        path: path.to_owned(),
                    },
                    _ => io(e),
                })?;
            if &head[4..] != b"\x0a\x09OSMHeader" {
                return Err(OsmError::NotPbf {
                    path: path.to_owned(),
                });
            }

            let reader = ElementReader::from_path(path).map_err(pbf)?;
            let (ways, restrictions) = whole(path, || {
                reader.par_map_reduce(
                    roads_of,
                    || (Vec::new(), Vec::new()),
                    |a, b| (joined(a.0, b.0), joined(a.1, b.1)),
                )
            })?;
            let mut osm = OsmData {
                nodes: BTreeMap::new(),
                ways,
                restrictions,
            };
            let mut used: Vec<i64> = osm.ways.iter().flat_map(|w| w.nodes.iter().copied()).collect();
            used.sort_unstable();
            used.dedup();
            let reader = ElementReader::from_path(path).map_err(pbf)?;
            let mut nodes = whole(path, || {
                reader.par_map_reduce(|e| node_of(e, &used), Vec::new, joined)
            })?;
            // A repeated id would depend on the order of decoding; the order of contents does not.
            nodes.sort_by(|a: &(i64, OsmNode), b| {
                (a.0, &a.1.tags)
                    .cmp(&(b.0, &b.1.tags))
                    .then(a.1.lat.total_cmp(&b.1.lat))
                    .then(a.1.lon.total_cmp(&b.1.lon))
            });
            nodes.dedup_by_key(|n| n.0);
            osm.nodes = nodes.into_iter().collect();
            osm.normalise();
            Ok(osm)
        }

        /// Reads the roads, their nodes and the turn restrictions of OSM XML. Deleted objects are left out.
        ///
        /// # Errors
        /// [`OsmError::Xml`] with the place.
        pub fn read_xml(input: impl BufRead) -> Result<OsmData, OsmError> {
            XmlReader::new(input).read()
        }
    }

    /// What `decode` makes of the file. The decoder panics at some damage (members of relations of an unknown
    /// kind, sums that overflow) that it only meets when an element is looked at.
    fn whole<T>(path: &Path, decode: impl FnOnce() -> osmpbf::Result<T>) -> Result<T, OsmError> {
        let damaged = |what: String| OsmError::Pbf {
            path: path.to_owned(),
            what,
        };
        // Nothing of what the closure saw is used after a panic.
        match panic::catch_unwind(AssertUnwindSafe(decode)) {
            Ok(decoded) => decoded.map_err(|e| damaged(e.to_string())),
            Err(_) => Err(damaged("an element cannot be decoded".to_owned())),
        }
    }

    /// The longer list with the shorter one appended.
    fn joined<T>(mut a: Vec<T>, mut b: Vec<T>) -> Vec<T> {
        if a.len() < b.len() {
            std::mem::swap(&mut a, &mut b);
        }
        a.append(&mut b);
        a
    }

    fn owned<'a>(tags: impl Iterator<Item = (&'a str, &'a str)>) -> Tags {
        tags.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    fn roads_of(element: Element<'_>) -> (Vec<OsmWay>, Vec<OsmRestriction>) {
        match element {
            Element::Way(way) if way.tags().any(|(k, _)| k == "highway") => {
                let tags = owned(way.tags());
                if tags::is_road(&tags) {
                    return (
                        vec![OsmWay {
                            id: way.id(),
                            nodes: way.refs().collect(),
                            tags,
                        }],
                        Vec::new(),
                    );
                }
            }
            Element::Relation(relation) if relation.tags().any(|(k, _)| k == "type") => {
                let tags = owned(relation.tags());
                if is_restriction(&tags) {
                    let members: Vec<Member> = relation
                        .members()
                        .filter(|m| m.member_type != RelMemberType::Relation)
                        .map(|m| Member {
                            way: m.member_type == RelMemberType::Way,
                            id: m.member_id,
                            role: m.role().unwrap_or_default().to_owned(),
                        })
                        .collect();
                    return (Vec::new(), restrictions_of(relation.id(), &members, &tags));
                }
            }
            _ => {}
        }
        (Vec::new(), Vec::new())
    }

    fn node_of(element: Element<'_>, used: &[i64]) -> Vec<(i64, OsmNode)> {
        let is_used = |id: i64| used.binary_search(&id).is_ok();
        let read = |k: &&str| tags::NODE_KEYS.contains(k);
        match element {
            Element::Node(n) if is_used(n.id()) => {
                let tags = owned(n.tags().filter(|(k, _)| read(k)));
                vec![(
                    n.id(),
                    OsmNode {
                        lat: n.lat(),
                        lon: n.lon(),
                        tags,
                    },
                )]
            }
            Element::DenseNode(n) if is_used(n.id()) => {
                let tags = owned(n.tags().filter(|(k, _)| read(k)));
                vec![(
                    n.id(),
                    OsmNode {
                        lat: n.lat(),
                        lon: n.lon(),
                        tags,
                    },
                )]
            }
            _ => Vec::new(),
        }
    }

    /// The object whose children are being read.
    enum Open {
        Nothing,
        Node(i64, OsmNode),
        Way(OsmWay),
        Relation {
            id: i64,
            members: Vec<Member>,
            tags: Tags,
        },
        /// A deleted object.
        Skipped,
    }

    struct XmlReader<R: BufRead> {
        reader: Reader<R>,
        osm: OsmData,
        open: Open,
    }

    impl<R: BufRead> XmlReader<R> {
        fn new(input: R) -> Self {
            Self {
                reader: Reader::from_reader(input),
                osm: OsmData::default(),
                open: Open::Nothing,
            }
        }

        fn fail(&self, what: impl Into<String>) -> OsmError {
            OsmError::Xml {
                position: self.reader.buffer_position(),
                what: what.into(),
            }
        }

        fn read(mut self) -> Result<OsmData, OsmError> {
            let mut buffer = Vec::new();
            let (mut root, mut ended) = (false, false);
            loop {
                buffer.clear();
                match self.reader.read_event_into(&mut buffer) {
                    Ok(Event::Start(e)) => {
                        if root {
                            self.start(&e)?;
                        } else if name(&e) == "osm" {
                            root = true;
                        } else {
                            return Err(self.fail(format!("the root element is <{}>, not <osm>", name(&e))));
                        }
                    }
                    Ok(Event::Empty(e)) if root => {
                        self.start(&e)?;
                        self.end(&name(&e));
                    }
                    Ok(Event::Empty(e)) if name(&e) == "osm" => (root, ended) = (true, true),
                    Ok(Event::End(e)) => {
                        let element = e.name().as_ref().to_owned();
                        ended |= element == "osm";
                        self.end(&element);
                    }
                    Ok(Event::Eof) if root && ended => break,
                    Ok(Event::Eof) if root => return Err(self.fail("the text ends before </osm>: truncated")),
                    Ok(Event::Eof) => return Err(self.fail("there is no <osm> element")),
                    Ok(_) => {}
                    Err(e) => return Err(self.fail(e.to_string())),
                }
            }
            self.osm.normalise();
            Ok(self.osm)
        }

        fn start(&mut self, e: &BytesStart<'_>) -> Result<(), OsmError> {
            match (name(e).as_str(), &mut self.open) {
                ("node", _) => {
                    let id = self.number(e, "id")?;
                    self.open = if self.deleted(e)? {
                        Open::Skipped
                    } else {
                        let (lat, lon) = (self.number(e, "lat")?, self.number(e, "lon")?);
                        Open::Node(
                            id,
                            OsmNode {
                                lat,
                                lon,
                                tags: Tags::new(),
                            },
                        )
                    };
                }
                ("way", _) => {
                    let id = self.number(e, "id")?;
                    self.open = if self.deleted(e)? {
                        Open::Skipped
                    } else {
                        Open::Way(OsmWay {
                            id,
                            ..OsmWay::default()
                        })
                    };
                }
                ("relation", _) => {
                    let id = self.number(e, "id")?;
                    self.open = if self.deleted(e)? {
                        Open::Skipped
                    } else {
                        Open::Relation {
                            id,
                            members: Vec::new(),
                            tags: Tags::new(),
                        }
                    };
                }
                ("nd", Open::Way(_)) => {
                    let node = self.number(e, "ref")?;
                    if let Open::Way(way) = &mut self.open {
                        way.nodes.push(node);
                    }
                }
                ("member", Open::Relation { .. }) => {
                    let kind = self.attribute(e, "type")?.unwrap_or_default();
                    if kind != "relation" {
                        let member = Member {
                            way: kind == "way",
                            id: self.number(e, "ref")?,
                            role: self.attribute(e, "role")?.unwrap_or_default(),
                        };
                        if let Open::Relation { members, .. } = &mut self.open {
                            members.push(member);
                        }
                    }
                }
                ("tag", Open::Node(..) | Open::Way(_) | Open::Relation { .. }) => {
                    let key = self
                        .attribute(e, "k")?
                        .ok_or_else(|| self.fail("<tag> without `k`"))?;
                    let value = self
                        .attribute(e, "v")?
                        .ok_or_else(|| self.fail("<tag> without `v`"))?;
                    match &mut self.open {
                        Open::Node(_, node) => node.tags.insert(key, value),
                        Open::Way(way) => way.tags.insert(key, value),
                        Open::Relation { tags, .. } => tags.insert(key, value),
                        Open::Nothing | Open::Skipped => None,
                    };
                }
                _ => {}
            }
            Ok(())
        }

        fn end(&mut self, element: &str) {
            if !matches!(element, "node" | "way" | "relation") {
                return;
            }
            match std::mem::replace(&mut self.open, Open::Nothing) {
                Open::Node(id, node) => {
                    self.osm.nodes.insert(id, node);
                }
                Open::Way(way) if tags::is_road(&way.tags) => self.osm.ways.push(way),
                Open::Relation { id, members, tags } if is_restriction(&tags) => {
                    self.osm.restrictions.extend(restrictions_of(id, &members, &tags));
                }
                _ => {}
            }
        }

        fn deleted(&self, e: &BytesStart<'_>) -> Result<bool, OsmError> {
            Ok(self.attribute(e, "action")?.as_deref() == Some("delete")
                || self.attribute(e, "visible")?.as_deref() == Some("false"))
        }

        fn attribute(&self, e: &BytesStart<'_>, key: &str) -> Result<Option<String>, OsmError> {
            let found = e.try_get_attribute(key).map_err(|x| self.fail(x.to_string()))?;
            found
                .map(|a| {
                    a.normalized_value(XmlVersion::Implicit1_0)
                        .map(|v| v.into_owned())
                })
                .transpose()
                .map_err(|x| self.fail(x.to_string()))
        }

        fn number<T: std::str::FromStr>(&self, e: &BytesStart<'_>, key: &str) -> Result<T, OsmError> {
            let text = self
                .attribute(e, key)?
                .ok_or_else(|| self.fail(format!("<{}> without `{key}`", name(e))))?;
            text.parse()
                .map_err(|_| self.fail(format!("<{}>: {key}=\"{text}\" is no number", name(e))))
        }
    }

    fn name(e: &BytesStart<'_>) -> String {
        e.name().as_ref().to_owned()
    }
}

#[cfg(all(test, feature = "service"))]
mod tests {
    use super::super::drawn::{draw, restrict, tag};
    use super::*;

    fn xml(text: &str) -> Result<OsmData, OsmError> {
        OsmData::read_xml(text.as_bytes())
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut osm = draw(
            "A..B..C",
            &["AB name=<&\"'>", "BC name=长安南路 note=tab\tand\nline"],
        );
        tag(&mut osm, 'B', "highway=traffic_signals");
        restrict(
            &mut osm,
            1,
            Ok('B'),
            2,
            "type=restriction restriction=no_straight_on",
        );
        restrict(
            &mut osm,
            2,
            Err(&[1, 2]),
            1,
            "type=restriction restriction=no_u_turn",
        );
        let mut text = Vec::new();
        write_xml(&osm, &mut text).unwrap();
        assert_eq!(OsmData::read_xml(&text[..]).unwrap(), osm);
    }

    #[test]
    fn keeps_roads_their_nodes_and_restrictions_only() {
        let osm = xml(r#"<?xml version="1.0"?><osm>
            <bounds minlat="1"/>
            <node id="1" lat="1" lon="2"><tag k="name" v="x &amp; y"/></node><node id="2" lat="1" lon="2"/>
            <node id="3" lat="1" lon="2"/><node id="4" lat="1" lon="2" action="delete"/>
            <way id="9"><nd ref="1"/><nd ref="2"/><tag k="highway" v="service"/></way>
            <way id="8"><nd ref="2"/><nd ref="4"/><tag k="highway" v="primary"/></way>
            <way id="7" visible="false"><nd ref="1"/><nd ref="2"/><tag k="highway" v="primary"/></way>
            <way id="6"><nd ref="3"/><nd ref="1"/><tag k="highway" v="footway"/></way>
            <way id="5"><nd ref="3"/><nd ref="1"/></way>
            <relation id="1"><member type="way" ref="9" role="from"/><member type="way" ref="8" role="from"/>
              <member type="node" ref="2" role="via"/><member type="way" ref="8" role="to"/>
              <tag k="type" v="restriction"/><tag k="restriction" v="no_entry"/></relation>
            <relation id="2"><member type="way" ref="9" role="outer"/><tag k="type" v="multipolygon"/></relation>
            </osm>"#)
        .unwrap();
        assert_eq!(osm.ways.iter().map(|w| w.id).collect::<Vec<_>>(), [8, 9]);
        assert_eq!(osm.nodes.keys().copied().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(osm.nodes[&1].tags["name"], "x & y");
        let restrictions: Vec<_> = osm
            .restrictions
            .iter()
            .map(|r| (r.from, r.via_node, r.to))
            .collect();
        assert_eq!(restrictions, [(8, Some(2), 8), (9, Some(2), 8)]);
    }

    #[test]
    fn a_relation_of_too_many_pairs_is_left_out() {
        let relation = |n: usize| {
            let member = |role: &str| format!("<member type='way' ref='1' role='{role}'/>").repeat(n);
            let text = format!(
                "<osm><relation id='1'>{}{}<tag k='type' v='restriction'/></relation></osm>",
                member("from"),
                member("to")
            );
            xml(&text).unwrap().restrictions.len()
        };
        // Equal ones are one.
        assert_eq!(relation(16), 1);
        assert_eq!(relation(17), 0);
    }

    #[test]
    fn says_what_is_wrong_with_xml() {
        let told = |text: &str| xml(text).unwrap_err().to_string();
        assert!(told("").contains("no <osm> element"));
        assert!(told("<gpx></gpx>").contains("root element is <gpx>"));
        assert!(told("<osm><node id=\"1\" lat=\"1\" lon=\"2\"/>").contains("truncated"));
        assert!(told("<osm><node id=\"1\" lat=\"1\"/></osm>").contains("<node> without `lon`"));
        assert!(told("<osm><node id=\"1\" lat=\"x\" lon=\"2\"/></osm>").contains("lat=\"x\" is no number"));
        assert!(told("<osm><way id=\"1\"></node></osm>").contains("byte"));
    }

    #[test]
    fn says_what_is_wrong_with_pbf() {
        let dir = tempfile::tempdir().unwrap();
        let told = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let message = OsmData::read(&path).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
            message
        };
        assert!(told("short", b"\0\0").contains("not an OSM PBF file"));
        assert!(told("zip", b"PK\x03\x04 this is some archive").contains("not an OSM PBF file"));
        let header = b"\0\0\0\x0e\x0a\x09OSMHeader\x18\x0a";
        assert!(told("cut", header).contains("damaged or truncated"));
        // A relation with a member that is neither node nor way nor relation.
        let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
        let table: Vec<u8> = ["", "type", "restriction"]
            .iter()
            .flat_map(|s| field(1, s.as_bytes()))
            .collect();
        let relation = [
            field(2, &[1]),
            field(3, &[2]),
            field(8, &[0]),
            field(9, &[2]),
            field(10, &[9]),
        ]
        .concat();
        let block = [field(1, &table), field(2, &field(4, &relation))].concat();
        let blob = |kind: &str, content: &[u8]| {
            let blob = field(1, content);
            let head = [field(1, kind.as_bytes()), vec![3 << 3, blob.len() as u8]].concat();
            [&[0, 0, 0, head.len() as u8], &head[..], &blob].concat()
        };
        let file = [
            blob("OSMHeader", &field(4, b"OsmSchema-V0.6")),
            blob("OSMData", &block),
        ]
        .concat();
        assert!(told("member", &file).contains("damaged or truncated"));
        let missing = OsmData::read(dir.path().join("none")).unwrap_err().to_string();
        assert!(
            missing.contains("none") && missing.contains("cannot read"),
            "{missing}"
        );
    }
}
