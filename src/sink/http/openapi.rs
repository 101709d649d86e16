//! The OpenAPI document, written by hand beside the routes it describes.

use serde_json::{Map, Value, json};

use super::board::LEVELS;
use super::events::Subject;
use super::public::{LIMIT_DEFAULT, LIMIT_MAX};

fn parameter(name: &str, place: &str, required: bool, schema: &Value, description: &str) -> Value {
    json!({"name": name, "in": place, "required": required, "schema": schema, "description": description})
}

fn answer(kind: &str, schema: &str, description: &str) -> Value {
    let reference = json!({"$ref": format!("#/components/schemas/{schema}")});
    json!({"description": description, "content": {kind: {"schema": reference}}})
}

fn problem(description: &str) -> Value {
    answer("application/problem+json", "Problem", description)
}

/// A GET operation; `errors` are the codes beside 200, 401 and 503.
fn operation(id: &str, summary: &str, parameters: &[Value], ok: &Value, errors: &[&str]) -> Value {
    let mut responses = Map::new();
    responses.insert("200".to_owned(), ok.clone());
    for code in errors {
        let response = match *code {
            "304" => json!({"description": "The map is the one named in If-None-Match"}),
            "404" => problem("There is no such thing; the detail says what there is"),
            _ => problem("A parameter is wrong; the detail says what would be right"),
        };
        responses.insert((*code).to_owned(), response);
    }
    if id != "getOpenApi" {
        responses.insert(
            "401".to_owned(),
            problem("The bearer token is missing or another one"),
        );
    }
    responses.insert(
        "503".to_owned(),
        problem("Too much at once, or no answer in time"),
    );
    json!({"get": {"operationId": id, "summary": summary, "parameters": parameters, "responses": responses}})
}

/// The OpenAPI 3.1 document of the public API, as served at `/openapi.json`.
pub fn openapi() -> Value {
    let id = |what: &str| parameter("id", "path", true, &json!({"type": "string"}), what);
    let limit = parameter(
        "limit",
        "query",
        false,
        &json!({"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}),
        "Most entries in the answer",
    );
    let degrees = |name: &str, max: u32, required, what: &str| {
        let range = json!({"type": "number", "minimum": -i64::from(max), "maximum": max});
        parameter(name, "query", required, &range, what)
    };
    let topics = Subject::ALL.map(Subject::word);
    let collection = |what| answer("application/geo+json", "FeatureCollection", what);
    let feature = |what| answer("application/geo+json", "Feature", what);

    let mut paths = Map::new();
    let mut add = |path: &str, operation: Value| paths.insert(path.to_owned(), operation);
    add(
        "/api/v1/network",
        operation(
            "getNetwork",
            "All segments of the map, once: properties segment_id, segment, road_class, name, length_m, \
             and from_street and to_street, the next other streets behind and ahead",
            &[],
            &collection("The map; its ETag is the map's version"),
            &["304", "400"],
        ),
    );
    add(
        "/api/v1/segments",
        operation(
            "listSegments",
            "Segments with a published state, by segment index; properties are the state (viaflux.segment_state/1)",
            &[
                parameter(
                    "bbox",
                    "query",
                    false,
                    &json!({"type": "string"}),
                    "west,south,east,north in degrees",
                ),
                parameter(
                    "min_level",
                    "query",
                    false,
                    &json!({"type": "string", "enum": LEVELS}),
                    "Only this congestion level and worse ones",
                ),
                limit.clone(),
                parameter(
                    "cursor",
                    "query",
                    false,
                    &json!({"type": "string"}),
                    "next_cursor of the page before",
                ),
            ],
            &collection("One page; next_cursor is null on the last"),
            &["400"],
        ),
    );
    add(
        "/api/v1/segments/{id}",
        operation(
            "getSegment",
            "One segment: state, shape and road",
            &[id("Segment id way:from_node:to_node")],
            &feature("Level unknown and basis none where nothing was published yet"),
            &["400", "404"],
        ),
    );
    add(
        "/api/v1/nearest",
        operation(
            "getNearest",
            "The segment nearest to a position, with match.distance_m, offset_m and bearing_deg",
            &[
                degrees("lat", 90, true, "Latitude, WGS-84"),
                degrees("lon", 180, true, "Longitude, WGS-84"),
                parameter(
                    "heading",
                    "query",
                    false,
                    &json!({"type": "number", "minimum": 0, "maximum": 360}),
                    "Direction of travel in degrees from north; roads that differ by more than 60 are left out",
                ),
                parameter(
                    "radius_m",
                    "query",
                    false,
                    &json!({"type": "number", "minimum": 1, "maximum": 500, "default": 50}),
                    "Search radius",
                ),
            ],
            &feature("The segment"),
            &["400", "404"],
        ),
    );
    for (plural, single, what) in [
        (
            "corridors",
            "corridor",
            "travel time (viaflux.corridor_travel_time/1)",
        ),
        ("regions", "region", "congestion index (viaflux.region_index/1)"),
    ] {
        let upper = format!("{}{}", single[..1].to_uppercase(), &single[1..]);
        add(
            &format!("/api/v1/{plural}"),
            operation(
                &format!("list{upper}s"),
                &format!("Every {single} with its newest {what}"),
                &[],
                &answer("application/json", &format!("{upper}List"), "By id"),
                &["400"],
            ),
        );
        add(
            &format!("/api/v1/{plural}/{{id}}"),
            operation(
                &format!("get{upper}"),
                &format!("One {single} with its newest {what}"),
                &[id(&format!("Id of the {single} in the configuration"))],
                &answer("application/json", upper.as_str(), "As published"),
                &["400", "404"],
            ),
        );
    }
    add(
        "/api/v1/alerts",
        operation(
            "listAlerts",
            "Alerts in their newest revision (viaflux.alert/1), what changed last first",
            &[
                parameter(
                    "state",
                    "query",
                    false,
                    &json!({"type": "string", "enum": ["open", "resolved", "all"], "default": "open"}),
                    "Resolved ones are kept for 24 h of event time, at most 1,000",
                ),
                limit.clone(),
            ],
            &answer("application/json", "AlertList", "The alerts"),
            &["400"],
        ),
    );
    add(
        "/api/v1/sensors",
        operation(
            "listSensors",
            "Roadside sensors heard of: health, since when, what is wrong, last interval",
            &[limit],
            &answer("application/json", "SensorList", "By id"),
            &["400"],
        ),
    );
    add(
        "/api/v1/alerts/{id}",
        operation(
            "getAlert",
            "One alert in its newest revision: where, how bad, and in its evidence what was looked at and which \
             conditions of the rule were met by which values",
            &[id("alert_id")],
            &answer("application/json", "Alert", "As published"),
            &["400", "404"],
        ),
    );
    add(
        "/api/v1/digest",
        operation(
            "getDigest",
            "The digest chain at the last pane that closed",
            &[],
            &answer(
                "application/json",
                "Digest",
                "Equal runs have equal digests at equal pane_end",
            ),
            &["400"],
        ),
    );
    add(
        "/api/v1/status",
        operation(
            "getStatus",
            "How old the data is, what was read, used and rejected, and whether all of it is served",
            &[],
            &answer("application/json", "Status", "The status"),
            &["400"],
        ),
    );
    add(
        "/api/v1/stream",
        operation(
            "getStream",
            "Server-sent events: states (array of segment states), pane, alert, index (region), corridor; reset \
             says that events were missed and the state must be loaded anew",
            &[
                parameter(
                    "topics",
                    "query",
                    false,
                    &json!({"type": "string", "default": topics.join(",")}),
                    &format!("Comma-separated, of {}", topics.join(", ")),
                ),
                parameter(
                    "last_event_id",
                    "query",
                    false,
                    &json!({"type": "string"}),
                    "Begin behind this event; `last_event_id` of an answer that was loaded before",
                ),
                parameter(
                    "Last-Event-ID",
                    "header",
                    false,
                    &json!({"type": "string"}),
                    "Resume behind this event; sent by browsers, and stronger than the query",
                ),
            ],
            &json!({"description": "Events until one side ends the stream", "content": {
                "text/event-stream": {"schema": {"type": "string"}}}}),
            &["400"],
        ),
    );
    add(
        "/openapi.json",
        operation(
            "getOpenApi",
            "This document",
            &[],
            &json!({"description": "OpenAPI 3.1", "content": {"application/json": {"schema": {"type": "object"}}}}),
            &["400"],
        ),
    );
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "viaflux",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Live traffic: segment states, corridors, regions, alerts. Names carry their units; \
                            unknown is null; times are RFC 3339 UTC; coordinates are WGS-84 [lon, lat].",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "security": [{}, {"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas(),
        },
    })
}

fn schemas() -> Value {
    let text = json!({"type": "string"});
    let maybe_text = json!({"type": ["string", "null"]});
    let number = json!({"type": "number"});
    let maybe_number = json!({"type": ["number", "null"]});
    let count = json!({"type": "integer", "minimum": 0});
    let flag = json!({"type": "boolean"});
    let moment = json!({"type": "string", "format": "date-time"});
    let maybe_moment = json!({"type": ["string", "null"], "format": "date-time"});
    let object = |required: &[&str], properties: Value| json!({"type": "object", "required": required, "properties": properties});
    let list = |name: &str, item: &str| {
        let items = json!({"type": "array", "items": {"$ref": format!("#/components/schemas/{item}")}});
        object(
            &["map_version", "pane_end", "last_event_id", name],
            json!({"map_version": text, "pane_end": maybe_moment, "last_event_id": text, name: items}),
        )
    };
    json!({
        "Problem": object(&["type", "title", "status", "detail"], json!({
            "type": text, "title": text, "status": {"type": "integer"}, "detail": text,
        })),
        "SegmentState": object(&["schema", "segment_id", "segment", "map_version", "level", "basis"], json!({
            "schema": {"const": "viaflux.segment_state/1"},
            "segment_id": text, "segment": count, "map_version": text, "way_id": {"type": "integer"},
            "forward": flag, "window_start": moment, "window_end": moment,
            "current_speed_kph": maybe_number, "free_flow_speed_kph": maybe_number,
            "typical_speed_kph": maybe_number, "speed_ratio": maybe_number,
            "current_travel_time_s": maybe_number, "free_flow_travel_time_s": maybe_number,
            "delay_s": maybe_number, "vehicle_count": count, "sample_count": count,
            "probe_share": number, "sensor_share": number, "age_s": maybe_number, "confidence": number,
            "basis": {"enum": ["live", "blended", "typical", "none"]}, "baseline": text,
            "level": {"enum": LEVELS.iter().copied().chain(["unknown"]).collect::<Vec<_>>()},
            "grade": maybe_text, "grade_index": {"type": ["integer", "null"]}, "trend": maybe_text,
            "partial": flag, "provisional": flag,
        })),
        "Road": object(&["road_class", "name", "length_m"], json!({
            "road_class": text, "name": maybe_text, "length_m": number, "speed_limit_kph": number,
            "speed_limit_tagged": flag, "lanes": count, "oneway": flag,
        })),
        "Feature": object(&["type", "id", "geometry", "properties"], json!({
            "type": {"const": "Feature"}, "id": text,
            "geometry": object(&["type", "coordinates"], json!({
                "type": {"const": "LineString"},
                "coordinates": {"type": "array", "items": {"type": "array", "items": number}},
            })),
            "properties": {"type": "object"},
            "road": {"$ref": "#/components/schemas/Road"},
            "match": object(&["distance_m", "offset_m", "bearing_deg"], json!({
                "distance_m": number, "offset_m": number, "bearing_deg": number,
            })),
        })),
        "FeatureCollection": object(&["type", "map_version", "features"], json!({
            "type": {"const": "FeatureCollection"}, "map_version": text, "pane_end": maybe_moment,
            "last_event_id": text, "next_cursor": maybe_text,
            "features": {"type": "array", "items": {"$ref": "#/components/schemas/Feature"}},
        })),
        "Corridor": object(&["corridor_id", "name"], json!({
            "corridor_id": text, "name": text, "travel_time_s": maybe_number,
            "free_flow_travel_time_s": maybe_number, "typical_travel_time_s": maybe_number,
            "delay_s": maybe_number, "length_m": number, "coverage_ratio": maybe_number,
            "confidence": maybe_number,
        })),
        "CorridorList": list("corridors", "Corridor"),
        "Region": object(&["region_id", "profile"], json!({
            "region_id": text, "profile": text, "profile_verified": flag, "index": maybe_number,
            "tti": maybe_number, "mean_speed_kph": maybe_number,
            "length_m_by_level": {"type": "object", "additionalProperties": number},
            "coverage_ratio": maybe_number,
        })),
        "RegionList": list("regions", "Region"),
        "Alert": object(&["schema", "alert_id", "revision", "type", "transition", "severity"], json!({
            "schema": {"const": "viaflux.alert/1"}, "alert_id": text,
            "revision": {"type": "integer", "minimum": 1}, "type": text,
            "transition": {"enum": ["opened", "updated", "resolved"]}, "severity": text,
            "starts_at": moment, "updated_at": moment, "ends_at": maybe_moment,
            "place": {"type": "object"}, "values": {"type": "object"}, "evidence": {"type": "object"},
            "rule": text, "stale": flag, "cause": maybe_text, "merged_into": maybe_text,
        })),
        "AlertList": list("alerts", "Alert"),
        "Sensor": object(&["schema", "sensor_id", "segment_id", "health", "cause", "since"], json!({
            "schema": {"const": "viaflux.sensor/1"}, "sensor_id": text, "segment_id": text, "name": maybe_text,
            "position": {"type": ["array", "null"], "items": number},
            "health": {"enum": ["ok", "suspect", "faulty"]}, "cause": maybe_text, "since": maybe_moment,
            "interval_start": moment, "interval_end": moment, "vehicle_count": number,
            "occupancy_percent": maybe_number, "speed_kph": maybe_number, "record_count": count,
            "disbelieved_count": count,
        })),
        "SensorList": list("sensors", "Sensor"),
        "Digest": object(&["digest", "pane_end", "map_version", "config_hash"], json!({
            "digest": maybe_text, "pane_end": maybe_moment, "map_version": text, "config_hash": maybe_text,
        })),
        "Status": object(&["ready", "reason", "map_version", "pane_end", "age_s", "records", "sources"], json!({
            "ready": flag, "reason": maybe_text, "mode": text, "version": text, "map_version": text,
            "config_hash": maybe_text, "server_time": moment, "pane_end": maybe_moment,
            "age_s": maybe_number, "since_last_pane_s": maybe_number, "coverage_ratio": maybe_number,
            "records": object(&["read", "used", "rejected"], json!({
                "read": count, "used": count,
                "rejected": {"type": "object", "additionalProperties": count},
            })),
            "sources": {"type": "array", "items": object(&["id", "feed", "records_read"], json!({
                "id": text, "feed": text, "records_read": count, "watermark": maybe_moment,
                "last_event_time": maybe_moment, "lag_records": {"type": ["integer", "null"]},
            }))},
            "segments_total": count,
            "segments_by_basis": {"type": "object", "additionalProperties": count},
            "alerts_open": count, "last_event_id": text,
        })),
    })
}
