// How classes and confidence are stored, a byte for each pixel.

/** Class of a pixel that has no data, and its confidence. */
export const NODATA = 255;
/** Confidence of a probability of 1. */
export const STEPS = 254;
