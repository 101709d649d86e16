//! The parts of the hot path by themselves, and the engine over ten minutes of the built-in city.
//!
//! `cargo bench`; figures with the machine they were seen on: docs/benchmarks.md.

use std::collections::HashSet;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use viaflux::assess::Places;
use viaflux::baseline::Baseline;
use viaflux::engine::{Batch, Engine, LogSpec, Output, Record, Setup};
use viaflux::ingest::{self, Area, Decoder, Feed, FieldMapping};
use viaflux::locate::Sites;
use viaflux::network::router::Router;
use viaflux::network::{BuildSettings, Network};
use viaflux::simulate::{self, Simulation};
use viaflux::units::Position;

/// Ten minutes of the city: its network and its probe records.
fn city() -> (Arc<Network>, Vec<Vec<u8>>) {
    let mut simulation = Simulation::new(simulate::Settings::default());
    let (network, _) = Network::build(simulation.osm(), &BuildSettings::default());
    let mut records = Vec::new();
    simulation.step_to(simulation.now().plus_ms(600_000), &mut records);
    let probes = records.into_iter().filter(|r| r.feed == simulate::Feed::Probe);
    (Arc::new(network), probes.map(|r| r.line).collect())
}

fn decoder(network: &Network) -> Decoder {
    let (south_west, north_east) = network.bounds();
    let settings = ingest::Settings::default();
    let area = Area::around(south_west, north_east, settings.area_margin_m);
    let mapping = FieldMapping::simulated_city(Feed::Probe);
    Decoder::new(mapping, None, settings, area, Arc::new(HashSet::new()))
}

fn engine(network: &Arc<Network>) -> Engine {
    let settings = ingest::Settings::default();
    let profile = toml::from_str(include_str!("../config/profiles/gbt33171-2016.toml"));
    Engine::new(Setup {
        network: Arc::clone(network),
        baseline: Arc::new(Baseline::prior(Arc::clone(network))),
        sites: Arc::new(Sites::default()),
        places: Arc::new(Places::whole_city(network)),
        profile: Arc::new(profile.expect("the built-in profile is valid")),
        locate: Default::default(),
        aggregate: Default::default(),
        assess: Default::default(),
        publish: Default::default(),
        logs: vec![LogSpec {
            name: "bench".to_owned(),
            source: "bench".to_owned(),
            decoder: Arc::new(decoder(network)),
            feed: Feed::Probe,
            lanes: settings.virtual_partitions,
            lateness_ms: 15_000,
            settings,
        }],
        threads: 1,
        observe: false,
        config_hash: [0; 32],
    })
}

fn stages(c: &mut Criterion) {
    let (network, lines) = city();
    let decoder = decoder(&network);

    let mut group = c.benchmark_group("records");
    group.throughput(Throughput::Elements(lines.len() as u64));
    group.sample_size(10);
    group.bench_function("decode", |b| {
        b.iter(|| {
            lines
                .iter()
                .filter(|l| decoder.decode(black_box(l), 1).is_ok())
                .count()
        })
    });
    group.bench_function("engine, one thread", |b| {
        b.iter(|| {
            let mut engine = engine(&network);
            let mut out = Output::default();
            for (k, chunk) in lines.chunks(8192).enumerate() {
                let mut batch = Batch::default();
                for (i, value) in chunk.iter().enumerate() {
                    let offset = (k * 8192 + i) as u64;
                    batch.push(Record {
                        log: 0,
                        offset,
                        append_time: None,
                        control: false,
                        key: &[],
                        value,
                    });
                }
                engine.step(&batch, &mut out, &mut ());
            }
            out.publications.len()
        })
    });
    group.finish();

    let (a, b) = network.bounds();
    let at = |k: u32| {
        let share = f64::from(k % 997) / 997.0;
        let lat = a.lat() + (b.lat() - a.lat()) * share;
        let lon = a.lon() + (b.lon() - a.lon()) * (f64::from(k * 31 % 983) / 983.0);
        Position::from_degrees(lat, lon).expect("inside the bounds")
    };
    let mut found = Vec::new();
    let mut k = 0;
    c.bench_function("candidates within 40 m", |b| {
        b.iter(|| {
            k += 1;
            network.candidates(at(k), 40_000, &mut found);
            found.len()
        })
    });
    let (mut router, mut lengths) = (Router::default(), Vec::new());
    let n = network.segments().len() as u32;
    c.bench_function("paths to the successors within 250 m", |b| {
        b.iter(|| {
            k += 1;
            let from = k * 7919 % n;
            let targets: Vec<(u32, u32)> = network.successors(from).iter().map(|s| (*s, 1000)).collect();
            router.paths(&network, (from, 0), &targets, 250_000, &mut lengths);
            lengths.len()
        })
    });
}

criterion_group!(benches, stages);
criterion_main!(benches);
