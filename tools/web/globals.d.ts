// geotiff.js, as its script for browsers defines it.
declare const GeoTIFF: typeof import("geotiff");
