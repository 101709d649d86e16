//! GPX 1.0 and 1.1, read leniently: what receivers and programs write is often not quite valid.
//!
//! A `<trk>` with all its segments is one trace. The points of a `<rte>` are a plan of a journey, and of waypoints
//! even that is not known: routes are taken only where there is no track, and without times; waypoints never.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::rows::time_of_text;
use super::{Found, Lines, Point, heading, position, speed};

/// A track or a route, as it is being read.
#[derive(Default)]
struct Line {
    name: Option<String>,
    points: Vec<Point>,
}

struct Gpx<'a> {
    reader: Reader<&'a [u8]>,
    /// Local names of the elements that are open.
    open: Vec<String>,
    /// Text of the innermost element so far.
    content: String,
    point: Option<Result<Point, String>>,
    tracks: Vec<Line>,
    routes: Vec<Line>,
    waypoints: u64,
    lines: Lines<'a>,
}

/// Reads the tracks of a text, or its routes if it has none.
pub(super) fn read(text: &str, found: &mut Found) -> Result<(), String> {
    let mut gpx = Gpx {
        reader: Reader::from_str(text),
        open: Vec::new(),
        content: String::new(),
        point: None,
        tracks: Vec::new(),
        routes: Vec::new(),
        waypoints: 0,
        lines: Lines::of(text.as_bytes()),
    };
    // Programs that log as they go leave files without an end.
    if let Some(cut) = gpx.run(found)? {
        found.notes.push(cut);
    }
    let filled = |lines: &[Line]| lines.iter().any(|l| !l.points.is_empty());
    let has_points = filled(&gpx.tracks) || filled(&gpx.routes);
    if !has_points && found.refused == 0 {
        return Err(match (gpx.tracks.len(), gpx.waypoints) {
            (0, 0) => "the GPX file holds no track".to_owned(),
            (0, n) => format!("the GPX file holds {n} waypoints and no track; waypoints are no trace"),
            (n, _) => format!("the GPX file holds no points in its {n} track(s)"),
        });
    }
    let lines = if filled(&gpx.tracks) {
        gpx.tracks
    } else {
        if filled(&gpx.routes) {
            let note = "the GPX file has no track with points; its routes are matched";
            found.notes.push(note.to_owned());
        }
        gpx.routes
    };
    for line in lines {
        found.begin(line.name);
        line.points.into_iter().for_each(|p| found.push(p));
    }
    Ok(())
}

impl Gpx<'_> {
    /// Reads to the end; tells where the text breaks off, if it does within a track.
    fn run(&mut self, found: &mut Found) -> Result<Option<String>, String> {
        let mut root = false;
        loop {
            let begin = self.reader.buffer_position() as usize;
            let event = self.reader.read_event();
            let line = self.lines.of_text_at(begin);
            match event {
                Ok(Event::Start(e)) => {
                    root = check_root(root, &e, line)?;
                    self.start(&e, line);
                }
                Ok(Event::Empty(e)) => {
                    root = check_root(root, &e, line)?;
                    self.start(&e, line);
                    self.end(found, line);
                }
                Ok(Event::End(_)) => self.end(found, line),
                Ok(Event::Text(t)) => self.content.push_str(&t.xml10_content()),
                Ok(Event::CData(t)) => self.content.push_str(&t.xml10_content()),
                Ok(Event::GeneralRef(r)) => match r.resolve_char_ref() {
                    Ok(Some(c)) => self.content.push(c),
                    _ => {
                        let known = quick_xml::escape::resolve_predefined_entity(&r.xml10_content());
                        self.content.push_str(known.unwrap_or_default());
                    }
                },
                Ok(Event::Eof) if !root => return Err("there is no <gpx> element".to_owned()),
                Ok(Event::Eof) => {
                    return Ok(self
                        .open
                        .last()
                        .map(|e| format!("the text ends within <{e}>: cut short; what is there is taken")));
                }
                Ok(_) => {}
                // A tag that is not closed reaches to the end of the text.
                Err(quick_xml::Error::Syntax(_)) if root => {
                    return Ok(Some(format!(
                        "the text ends in the middle of line {line}: cut short; what is there is taken"
                    )));
                }
                Err(e) => return Err(format!("line {line}: {e}")),
            }
        }
    }

    fn start(&mut self, e: &BytesStart<'_>, line: u64) {
        let name = e.local_name().as_ref().to_owned();
        self.content.clear();
        match name.as_str() {
            "trk" => self.tracks.push(Line::default()),
            "rte" => self.routes.push(Line::default()),
            "wpt" => self.waypoints += 1,
            "trkpt" | "rtept" => self.point = Some(begin_point(e, line)),
            _ => {}
        }
        self.open.push(name);
    }

    fn end(&mut self, found: &mut Found, line: u64) {
        let Some(name) = self.open.pop() else { return };
        let content = self.content.trim();
        if let Some(point) = &mut self.point {
            let number = || content.parse::<f64>().ok();
            match name.as_str() {
                "time" => {
                    if let (Ok(p), false) = (&mut *point, self.open.iter().any(|e| e == "rtept")) {
                        match time_of_text(content) {
                            Ok(time) => p.time = time,
                            Err(problem) => *point = Err(problem),
                        }
                    }
                }
                // Both are m/s by their schemas.
                "speed" => {
                    if let Ok(p) = point {
                        p.speed = number().and_then(speed);
                    }
                }
                "course" => {
                    if let Ok(p) = point {
                        p.heading = number().and_then(heading);
                    }
                }
                "trkpt" | "rtept" => {
                    let lines = if name == "trkpt" {
                        &mut self.tracks
                    } else {
                        &mut self.routes
                    };
                    match (self.point.take(), lines.last_mut()) {
                        (Some(Ok(p)), Some(l)) => l.points.push(p),
                        (Some(Err(problem)), _) => found.refuse(line, problem),
                        _ => found.refuse(line, "a point outside of any track"),
                    }
                }
                _ => {}
            }
        } else if name == "name" && !content.is_empty() {
            let lines = match self.open.last().map(String::as_str) {
                Some("trk") => &mut self.tracks,
                Some("rte") => &mut self.routes,
                _ => return self.content.clear(),
            };
            if let Some(l) = lines.last_mut() {
                l.name = Some(content.to_owned());
            }
        }
        self.content.clear();
    }
}

fn check_root(root: bool, e: &BytesStart<'_>, line: u64) -> Result<bool, String> {
    if root || e.local_name().as_ref() == "gpx" {
        return Ok(true);
    }
    Err(format!(
        "line {line}: the root element is <{}>, not <gpx>; of XML only GPX is known",
        e.name().as_ref()
    ))
}

fn begin_point(e: &BytesStart<'_>, line: u64) -> Result<Point, String> {
    let degrees = |name: &str| {
        let mut attributes = e.attributes().flatten();
        let Some(a) = attributes.find(|a| a.key.as_ref() == name) else {
            return Err(format!("a point without `{name}`"));
        };
        let text = a.value.trim();
        text.parse::<f64>()
            .map_err(|_| format!("`{name}` is `{text}`, no number"))
    };
    Ok(Point::at(line, position(degrees("lat")?, degrees("lon")?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Result<Found, String> {
        let mut found = Found::default();
        read(text, &mut found).map(|()| found)
    }

    #[test]
    fn tracks_segments_names_times_speeds() {
        let gpx = r#"<?xml version="1.0"?>
<gpx xmlns="http://www.topografix.com/GPX/1/1" xmlns:x="http://e.org/x"><metadata><name>no</name><time>2020-01-01T00:00:00Z</time></metadata>
<wpt lat="1" lon="1"><name>also no</name></wpt>
<rte><name>plan</name><rtept lat="1" lon="2"/></rte>
<trk><name>A &amp; B<![CDATA[ & C]]></name><trkseg>
<trkpt lat="50.1" lon="8.1"><ele>3</ele><time>2020-01-01T00:00:05.5+01:00</time><name>p</name></trkpt>
<trkpt lat="50.2" lon="8.2"><extensions><x:e><x:speed>2.5</x:speed><x:course>-1</x:course></x:e></extensions></trkpt>
</trkseg><trkseg><trkpt lat="50.3" lon="8.3"><course>90</course></trkpt></trkseg></trk>
<trk/></gpx>"#;
        let found = found(gpx).unwrap();
        assert_eq!((found.tracks.len(), found.refused), (2, 0));
        let (name, points) = &found.tracks[0];
        assert_eq!(name.as_deref(), Some("A & B & C"));
        assert_eq!(points.iter().map(|p| p.line).collect::<Vec<_>>(), [6, 7, 8]);
        assert_eq!(points[0].time.map(|t| t.ms()), Some(1_577_833_205_500));
        assert_eq!((points[1].speed, points[1].heading), (Some(2_500), None));
        assert_eq!(
            points[2].heading,
            crate::units::Bearing::from_degrees(90.0),
            "segments are one trace"
        );
    }

    #[test]
    fn odd_points_are_refused_one_by_one() {
        let gpx = "<gpx><trk><trkseg><trkpt lat='x' lon='1'/><trkpt lon='1'/><trkpt lat='91' lon='1'/>\
                   <trkpt lat='0' lon='0'/><trkpt lat='1' lon='1'><time>noon</time></trkpt><trkpt lat='1' lon='1'/>\
                   </trkseg></trk></gpx>";
        let found = found(gpx).unwrap();
        assert_eq!((found.refused, found.tracks[0].1.len()), (5, 1));
        assert_eq!(
            found.first_refused.as_deref(),
            Some("line 1: `lat` is `x`, no number")
        );
    }

    #[test]
    fn routes_stand_in_for_tracks_and_waypoints_do_not() {
        let routes =
            found("<gpx><rte><name>R</name><rtept lat='1' lon='2'><time>0</time></rtept></rte><trk><trkseg/></trk></gpx>")
                .unwrap();
        assert_eq!(
            (routes.tracks[0].0.as_deref(), routes.notes.len()),
            (Some("R"), 1)
        );
        assert_eq!(routes.tracks[0].1[0].time, None);
        let waypoints = found("<gpx><wpt lat='1' lon='2'/></gpx>").unwrap_err();
        assert!(waypoints.contains("1 waypoints"), "{waypoints}");
        for (text, says) in [
            ("<gpx/>", "no track"),
            ("<gpx><trk><trkseg/></trk></gpx>", "no points in its 1"),
            ("<osm/>", "<osm>, not <gpx>"),
            ("<!-- -->", "no <gpx>"),
            ("<gpx><trk></gpx>\n<x/>", "line 1"),
        ] {
            let error = found(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_that_is_cut_short_gives_what_is_there() {
        for end in ["", "<trkpt lat='2' lon", "<trkpt lat='2' lon='3'><time>2020-0"] {
            let text = format!("<gpx><trk><trkseg>\n<trkpt lat='1' lon='2'/>\n{end}");
            let found = found(&text).unwrap();
            assert_eq!(
                (found.tracks[0].1.len(), found.notes.len()),
                (1, 1),
                "{end}: {:?}",
                found.notes
            );
        }
    }
}
