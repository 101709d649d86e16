//! Sensor sites bound to segments.
