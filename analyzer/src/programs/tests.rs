//! Tests of the survey.
