// Where a GeoTIFF lies on the ground, how large its pixels are there, and the tags that say so in the map.

/** @typedef {Record<number, number[] | string>} GeoTags Values of TIFF tags by number. */
/** @typedef {(x: number, y: number) => [number, number]} Ground Meters to the east and north of a unit of the map. */
/**
 * @typedef {object} Georeference
 * @property {GeoTags} tags As they stand in the file.
 * @property {boolean} isPoint Whether its coordinates mean the middles of pixels.
 * @property {number[] | null} transform (a, b, c, d, e, f): x = a·col + b·row + c and y = d·col + e·row + f.
 * @property {Ground | null} ground Null where the coordinate system isn't known.
 */

const PIXEL_SCALE = 33550, TIEPOINT = 33922, TRANSFORMATION = 34264, KEYS = 34735, DOUBLES = 34736, TEXTS = 34737;
export const GEO_TAGS = {
  ModelPixelScale: PIXEL_SCALE,
  ModelTiepoint: TIEPOINT,
  ModelTransformation: TRANSFORMATION,
  GeoKeyDirectory: KEYS,
  GeoDoubleParams: DOUBLES,
  GeoAsciiParams: TEXTS,
};
// WGS 84.
const EQUATOR = 6378137, ECCENTRICITY_2 = 0.00669437999014;
const WEB_MERCATORS = [3857, 3785, 900913, 102100, 102113];
const LINEAR_UNITS = /** @type {Record<number, number>} */ ({ 9001: 1, 9002: 0.3048, 9003: 1200 / 3937, 9036: 1000 });

/**
 * @param {GeoTags} tags
 * @param {Record<string, any> | null} keys The GeoKeys by name.
 * @returns {Georeference}
 */
export function georeference(tags, keys) {
  const scale = /** @type {number[]} */ (tags[PIXEL_SCALE]), tie = /** @type {number[]} */ (tags[TIEPOINT]);
  const matrix = /** @type {number[]} */ (tags[TRANSFORMATION]);
  const isPoint = keys?.GTRasterTypeGeoKey === 2, half = isPoint ? 0.5 : 0;
  let transform = null;
  if (matrix) {
    const [a, b, , c, d, e, , f] = matrix;
    transform = [a, b, c - half * (a + b), d, e, f - half * (d + e)];
  } else if (scale && tie?.length === 6) {
    const [right, down] = scale;
    transform = [right, 0, tie[3] - (tie[0] + half) * right, 0, -down, tie[4] + (tie[1] + half) * down];
  }
  return { tags, isPoint, transform, ground: keys && groundOf(keys) };
}

/**
 * Returns the height and width in meters of the pixel in the middle; null where that isn't known.
 * @param {Georeference} place
 * @param {number} height
 * @param {number} width
 * @returns {[number, number] | null}
 */
export function pixelSize({ transform, ground }, height, width) {
  if (!transform || !ground) return null;
  const [a, b, c, d, e, f] = transform;
  const [east, north] = ground((a * width + b * height) / 2 + c, (d * width + e * height) / 2 + f);
  return [Math.hypot(b * east, e * north), Math.hypot(a * east, d * north)];
}

/**
 * Returns a function that gives the square meters of a pixel in a row; null where that isn't known.
 * @param {Georeference} place
 * @param {number} width
 * @returns {((row: number) => number) | null}
 */
export function pixelArea({ transform, ground }, width) {
  if (!transform || !ground) return null;
  const [a, b, c, d, e, f] = transform;
  return (row) => {
    const [east, north] = ground((a * width) / 2 + b * (row + 0.5) + c, (d * width) / 2 + e * (row + 0.5) + f);
    return Math.abs(a * e - b * d) * east * north;
  };
}

/**
 * Returns the georeference of the same ground in pixels that are `down` times as high and `right` times as wide.
 * @param {Georeference} place
 * @param {number} down
 * @param {number} right
 * @returns {Georeference}
 */
export function scaled(place, down, right) {
  const tags = { ...place.tags }, half = place.isPoint ? 0.5 : 0;
  const { [PIXEL_SCALE]: scale, [TIEPOINT]: ties, [TRANSFORMATION]: matrix } = /** @type {any} */ (tags);
  if (scale) tags[PIXEL_SCALE] = [scale[0] * right, scale[1] * down, scale[2]];
  if (ties) {
    tags[TIEPOINT] = Array.from(ties, (value, n) => {
      return n % 6 > 1 ? value : (value + half) / (n % 6 ? down : right) - half;
    });
  }
  if (matrix) {
    const shift = (/** @type {number} */ n) => (matrix[n] * (right - 1) + matrix[n + 1] * (down - 1)) * half;
    const factor = [right, down, 1, 1];
    tags[TRANSFORMATION] = Array.from(matrix, (value, n) => value * factor[n % 4]);
    for (const row of [0, 4]) /** @type {number[]} */ (tags[TRANSFORMATION])[row + 3] += shift(row);
  }
  const transform = place.transform?.map((value, n) => value * [right, down, 1][n % 3]) ?? null;
  return { ...place, tags, transform };
}

/**
 * Degrees and Web Mercator's meters become meters on the ellipsoid; those of other maps are taken as they are.
 * @param {Record<string, any>} keys
 * @returns {Ground | null}
 */
function groundOf(keys) {
  if (keys.GTModelTypeGeoKey === 2) {
    return (_, latitude) => {
      const [east, north] = ellipsoid((latitude * Math.PI) / 180);
      return [(east * Math.PI) / 180, (north * Math.PI) / 180];
    };
  }
  if (keys.GTModelTypeGeoKey !== 1) return null;
  if (WEB_MERCATORS.includes(keys.ProjectedCSTypeGeoKey)) {
    return (_, y) => {
      const latitude = Math.atan(Math.sinh(y / EQUATOR));
      const [east, north] = ellipsoid(latitude);
      return [east / EQUATOR, (north * Math.cos(latitude)) / EQUATOR];
    };
  }
  const meters = keys.ProjLinearUnitSizeGeoKey ?? LINEAR_UNITS[keys.ProjLinearUnitsGeoKey ?? 9001] ?? null;
  return meters && (() => [meters, meters]);
}

/**
 * Returns the radii of a parallel and of the meridian's curve there, in meters.
 * @param {number} latitude In radians.
 * @returns {[number, number]}
 */
function ellipsoid(latitude) {
  const flat = 1 - ECCENTRICITY_2 * Math.sin(latitude) ** 2;
  return [(EQUATOR * Math.cos(latitude)) / Math.sqrt(flat), (EQUATOR * (1 - ECCENTRICITY_2)) / flat ** 1.5];
}
