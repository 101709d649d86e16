//! Whatever a log holds: every record is counted once, events leave in order, none before the watermark
//! passed it or after it was promised to be complete, and a checkpoint in between changes nothing.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use viaflux::ingest::{
    Control, Counts, Event, Ingest, Measurement, Probe, Rejection, Released, Settings, SubjectKey,
    VehicleClass,
};
use viaflux::units::{EventTime, Position};

#[derive(Arbitrary, Debug)]
enum Step {
    /// A record whose clock stands so many tenths of a second before or behind the log's.
    Record {
        subject: u8,
        tenths: i16,
        interval_s: u16,
        append_tenths: Option<i16>,
    },
    /// The clock of the log goes on by so many seconds.
    Clock(u8),
    /// A clock that is anywhere.
    Wild {
        subject: u8,
        ms: i64,
        interval_s: u16,
    },
    Refused(u8),
    /// Offsets may have gaps.
    Gap(u16),
    Idle {
        tenths: i16,
    },
    Control(Vec<u8>),
    Release,
    Restart,
}

#[derive(Arbitrary, Debug)]
struct Log {
    /// A log is of vehicles or of sensors.
    sensors: bool,
    future_agree: u8,
    future_alone: u8,
    order_buffer_max: u8,
    lateness_s: u8,
    steps: Vec<Step>,
}

/// 2026-11-23.
const START_MS: i64 = 1_795_392_000_000;

struct Watch {
    ingest: Ingest,
    events: u64,
    refused: u64,
    /// The last event released.
    last: Option<Event>,
    /// What was promised at the last release.
    promised: Option<EventTime>,
}

impl Watch {
    fn look(&mut self, out: &mut Released) {
        for event in out.events.drain(..) {
            assert!(
                self.last.as_ref().is_none_or(|last| *last < event),
                "out of order: {event:?}"
            );
            assert!(
                self.promised.is_none_or(|p| p <= event.time()),
                "behind the promise: {event:?}"
            );
            let watermark = self.ingest.watermark().expect("what is released was promised");
            assert!(event.time() < watermark, "before the watermark: {event:?}");
            self.events += 1;
            self.last = Some(event);
        }
        self.refused += out.refused.drain(..).count() as u64;
        let counts: &Counts = self.ingest.counts();
        assert!(counts.balanced());
        assert_eq!(counts.used, self.events + self.ingest.waiting() as u64);
        assert_eq!(counts.rejected.iter().sum::<u64>(), self.refused);
    }
}

fuzz_target!(|log: Log| {
    let settings = Settings {
        future_agree: u32::from(log.future_agree.max(1)),
        future_alone: u32::from(log.future_alone),
        order_buffer_max: u32::from(log.order_buffer_max),
        ..Settings::default()
    };
    let mut watch = Watch {
        ingest: Ingest::new(settings, i64::from(log.lateness_s) * 1000),
        events: 0,
        refused: 0,
        last: None,
        promised: None,
    };
    let mut out = Released::default();
    let (mut offset, mut now, mut read, mut control) = (0_u64, START_MS, 0, 0);
    for step in log.steps {
        match step {
            Step::Clock(seconds) => now += i64::from(seconds) * 1000,
            Step::Gap(n) => offset += u64::from(n),
            Step::Record {
                subject,
                tenths,
                interval_s,
                append_tenths,
            } => {
                let sensor = log.sensors.then_some(interval_s);
                let time = EventTime::from_ms(now + i64::from(tenths) * 100);
                let append = append_tenths.map(|t| EventTime::from_ms(now + i64::from(t) * 100));
                let decoded = Ok(event(subject, time, sensor, offset));
                watch.ingest.push(offset, append, decoded, &mut out);
                (offset, read) = (offset + 1, read + 1);
            }
            Step::Wild {
                subject,
                ms,
                interval_s,
            } => {
                let sensor = log.sensors.then_some(interval_s);
                let (min, max) = (EventTime::MIN_PLAUSIBLE.ms(), EventTime::MAX_PLAUSIBLE.ms());
                let time = EventTime::from_ms(min + ms.rem_euclid(max - min));
                watch
                    .ingest
                    .push(offset, None, Ok(event(subject, time, sensor, offset)), &mut out);
                (offset, read) = (offset + 1, read + 1);
            }
            Step::Refused(reason) => {
                let reason = Rejection::ALL[usize::from(reason) % Rejection::ALL.len()];
                watch.ingest.push(offset, None, Err(reason), &mut out);
                (offset, read) = (offset + 1, read + 1);
            }
            Step::Idle { tenths } => {
                let watermark_ms = EventTime::from_ms(now + i64::from(tenths) * 100);
                watch.ingest.control(offset, Some(Control::Idle { watermark_ms }));
                (offset, control) = (offset + 1, control + 1);
            }
            Step::Control(payload) => {
                watch.ingest.control(offset, Control::parse(&payload));
                (offset, control) = (offset + 1, control + 1);
            }
            Step::Release => {
                watch.ingest.release(&mut out);
                watch.look(&mut out);
                let watermark = watch.ingest.watermark();
                assert!(watermark >= watch.promised, "the watermark never falls");
                watch.promised = watermark;
            }
            Step::Restart => {
                let kept = postcard::to_stdvec(&watch.ingest).expect("plain state encodes");
                watch.ingest = postcard::from_bytes(&kept).expect("what was kept can be read");
                assert_eq!(postcard::to_stdvec(&watch.ingest).ok(), Some(kept));
            }
        }
        watch.look(&mut out);
        assert_eq!(watch.ingest.next_offset() > 0, read + control > 0);
    }
    watch.ingest.end(&mut out);
    watch.ingest.release(&mut out);
    watch.look(&mut out);
    assert_eq!(watch.ingest.waiting(), 0, "nothing waits behind the end");
    let counts = watch.ingest.counts();
    assert_eq!(
        (counts.read, counts.control, counts.used),
        (read, control, watch.events)
    );
});

fn event(subject: u8, time: EventTime, sensor: Option<u16>, offset: u64) -> Event {
    let key = SubjectKey(u64::from(subject % 5));
    match sensor {
        Some(interval_s) => Event::Measurement(Measurement {
            time,
            sensor: key,
            interval_ms: u32::from(interval_s % 3600 + 1) * 1000,
            count_milli: Some(1000),
            occupancy_permille: None,
            speed: None,
            position: None,
            heading: None,
            offset,
        }),
        None => Event::Probe(Probe {
            time,
            vehicle: key,
            position: Position::from_degrees(34.26, 108.94).expect("degrees in range"),
            speed: Some(u32::from(subject) * 100),
            heading: None,
            accuracy_mm: None,
            class: VehicleClass::Taxi,
            occupied: None,
            ignition: None,
            offset,
        }),
    }
}
