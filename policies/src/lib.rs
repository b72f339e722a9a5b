//! Rules over what is known of an image and its pod.
