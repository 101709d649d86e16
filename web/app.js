// The live page: asks for the network and a snapshot once, then follows the event stream.
// It computes no traffic figure of its own; what the engine does not know stays grey.

const LEVELS = ['unknown', 'free_flow', 'heavy', 'slow', 'queuing', 'stationary', 'closed']; // in drawing order
const PANE_LATE_S = 120;     // no pane closed for so long (usually every 30 s): the page says that its picture is old
const AGE_MAX_S = 300;       // panes close, but of traffic so long ago: the engine lags, and the page says so too
const OUTDATED_MS = 600_000; // a live segment reports every 60 s of event time, so an older state tells nothing
const RETRY_MAX_MS = 30_000;

const TEXT = {
  en: {
    dataTime: 'Data time', dataAge: 'Data age', coverage: 'Share of roads', records: 'Records used', index: 'City index', levels: 'Road length by level',
    level: 'Level', length: 'Length', share: 'Share', alerts: 'Open alerts', worst: 'Worst segments', rankBy: 'Rank by', byDelay: 'delay', byRatio: 'vs free flow', byTypical: 'vs typical',
    zoomIn: 'Zoom in', zoomOut: 'Zoom out', zoomFit: 'Show the whole network', zoomTo: 'Show on the map', close: 'Close',
    map: 'Traffic map', mapHelp: 'Arrow keys move, plus and minus zoom, 0 shows everything, Escape closes the details and goes back to the list. Everything on the map that needs action is also in the lists.',
    connecting: 'Connecting', live: 'Live', stale: 'Stale', lost: 'Disconnected', notReady: 'Not ready', other: '中文',
    bannerLost: 'Connection lost: the picture is {0} old. Trying again.', bannerStale: 'The newest traffic data is {0} old: do not rely on this picture.', bannerNotReady: 'The engine is not ready: {0}',
    bannerFirst: 'Cannot load data ({0}). Trying again.', noAlerts: 'No open alerts', noWorst: 'No slow segment measured', unnamed: 'Unnamed road', noName: 'Unnamed {0}', notNow: 'not the present', notNowDemo: 'simulated, not the present', notNowReplay: 'replayed, not the present',
    ofTen: 'of 10', indexLow: '0 free', indexHigh: '10 jammed', scaleName: 'Scale: {0}. Higher is worse.', unverified: 'Not verified: its bounds are not yet checked against the text of the standard. Compare values of this city only.',
    ofFree: 'of free flow', rests: 'What the picture rests on', restsNote: 'Share of road length. Thin lines are not measured there now.', now_live: 'live', now_blended: 'neighbouring or older', now_typical: 'usual', now_none: 'no data',
    free_flow: 'Free flow', heavy: 'Heavy', slow: 'Slow', queuing: 'Queuing', stationary: 'Stationary', closed: 'Closed', unknown: 'No data',
    speed: 'Speed', freeSpeed: 'Free-flow speed', typicalSpeed: 'Typical speed', ratio: 'Of free flow', time: 'Travel time', delay: 'Delay', vehicles: 'Vehicles', samples: 'Positions', confidence: 'Confidence', sensor: 'Sensor share',
    basis: 'Rests on', b_live: 'live data', b_blended: 'neighbouring or older data', b_typical: 'usual speed only', b_none: 'nothing', r_live: 'Measured here now', r_blended: 'Neighbouring or older data', r_typical: 'Usual speed, not measured', r_none: 'No data', observed: 'Last observed', ago: '{0} ago', never: 'not yet', window: 'Window', grade: 'Grade', g_unobstructed: 'unobstructed', g_basically_unobstructed: 'basically unobstructed', g_light: 'light congestion', g_moderate: 'moderate congestion', g_severe: 'severe congestion', trend: 'Travel time is', increasing: 'rising', decreasing: 'falling', stable: 'steady',
    state: 'State', provisional: 'provisional', partial: 'partial', final: 'final', id: 'Segment', class: 'Road class', tti: 'Travel time index', mean: 'Mean speed', since: 'since {0}', staleTag: 'held',
    type: 'Type', severity: 'Severity', cause: 'Cause', onset: 'Onset', lasting: 'Lasting', updated: 'Last change', ended: 'Ended', delayAll: 'Delay over the stretch', perVehicle: '{0} a vehicle', against: 'Usual here', extent: 'Length', sensors: 'Sensors', revision: 'Revision', rule: 'Rule', region: 'Region', source: 'Source', idsSampled: 'Ids looked at', idsSplit: 'Ids in two partitions', partitions: 'Partitions', standing: 'Standing', alertId: 'Alert',
    s_open: 'open', s_held: 'held', s_resolved: 'resolved', heldNote: 'No new data since: the alert is held. It is not known to be over.', goneNote: 'This alert is resolved. It stays here until you close it.', why: 'What this rests on', extentList: 'Segments of the stretch', backToAlert: 'Back to the alert', noMap: 'It has no place on the map.',
    whyLink: '{0} vehicles with {1} positions and {2} sensors, {3} to {4}.', whyBasis: 'Speed from {0}; confidence {1}.', whyPrior: 'Free flow and usual speed are assumed from speed limit and road class: no history is loaded.', whyBaseline: 'Free flow and usual speed are those of baseline {0}.',
    whyKeying: '{0} of {1} ids looked at came in more than one partition, {2} to {3}.',
    towards: 'towards {0}', between: '{0} → {1}', comingFrom: 'from {0}', ramp: '{0} ramp', motorway: 'motorway', trunk: 'trunk road', primary: 'primary road', secondary: 'secondary road', tertiary: 'tertiary road', unclassified: 'minor road', residential: 'residential street', living_street: 'living street', busway: 'busway', service: 'service road',
    dir0: 'eastbound', dir1: 'north-eastbound', dir2: 'northbound', dir3: 'north-westbound', dir4: 'westbound', dir5: 'south-westbound', dir6: 'southbound', dir7: 'south-eastbound', opened: 'New alert', resolved: 'Alert resolved',
    congestion: 'Congestion', queue: 'Queue', incident_suspected: 'Suspected incident', closure_suspected: 'Suspected closure', corridor_delay: 'Corridor delay', region_index_high: 'City index high',
    sensor_fault: 'Sensor fault', feed_outage: 'Feed outage', coverage_lost: 'Coverage lost', split_identity: 'Split identity', minor: 'minor', moderate: 'moderate', major: 'major', critical: 'critical',
  },
  zh: {
    dataTime: '数据时间', dataAge: '数据时延', coverage: '道路占比', records: '有效记录', index: '全市拥堵指数', levels: '各状态里程',
    level: '状态', length: '里程', share: '占比', alerts: '未解除告警', worst: '最拥堵路段', rankBy: '排序', byDelay: '按延误', byRatio: '比自由流', byTypical: '比平时',
    zoomIn: '放大', zoomOut: '缩小', zoomFit: '显示全路网', zoomTo: '在地图上定位', close: '关闭',
    map: '路况图', mapHelp: '方向键平移，加减号缩放，0 显示全图，Esc 关闭详情并回到列表。地图上需处置的内容均列于两侧列表。',
    connecting: '连接中', live: '实时', stale: '数据陈旧', lost: '连接中断', notReady: '未就绪', other: 'English',
    bannerLost: '连接中断：画面已过时 {0}，正在重连。', bannerStale: '最新路况数据已是 {0} 前：请勿依据此画面决策。', bannerNotReady: '引擎未就绪：{0}',
    bannerFirst: '无法加载数据（{0}），正在重试。', noAlerts: '无未解除告警', noWorst: '暂无实测缓行路段', unnamed: '无名道路', noName: '无名{0}', notNow: '非当前时刻', notNowDemo: '仿真数据，非当前路况', notNowReplay: '重放数据，非当前路况',
    ofTen: '/ 10', indexLow: '0 畅通', indexHigh: '10 严重拥堵', scaleName: '标准：{0}。数值越大越拥堵。', unverified: '未核实：分级界限尚未与标准原文核对，仅可用于本市前后比较。',
    ofFree: '自由流占比', rests: '画面依据', restsNote: '按道路里程。细线处当前无实测。', now_live: '实测', now_blended: '邻近或较早', now_typical: '常态', now_none: '无数据',
    free_flow: '畅通', heavy: '车多', slow: '缓行', queuing: '排队', stationary: '停滞', closed: '封闭', unknown: '无数据',
    speed: '速度', freeSpeed: '自由流速度', typicalSpeed: '常态速度', ratio: '与自由流之比', time: '行程时间', delay: '延误', vehicles: '车辆数', samples: '定位点数', confidence: '置信度', sensor: '检测器占比',
    basis: '数据依据', b_live: '实测', b_blended: '邻近或较早数据', b_typical: '仅历史常态', b_none: '无', r_live: '当前实测', r_blended: '邻近或较早数据', r_typical: '历史常态，非实测', r_none: '无数据', observed: '最近观测', ago: '{0} 前', never: '尚无', window: '统计窗口', grade: '等级', g_unobstructed: '畅通', g_basically_unobstructed: '基本畅通', g_light: '轻度拥堵', g_moderate: '中度拥堵', g_severe: '严重拥堵', trend: '行程时间趋势', increasing: '上升', decreasing: '下降', stable: '平稳',
    state: '结果', provisional: '暂定', partial: '不完整', final: '最终', id: '路段', class: '道路等级', tti: '行程时间比', mean: '平均速度', since: '始于 {0}', staleTag: '保持',
    type: '类型', severity: '等级', cause: '成因', onset: '起始时刻', lasting: '已持续', updated: '最近变更', ended: '结束', delayAll: '全段延误', perVehicle: '每车 {0}', against: '平时速度', extent: '长度', sensors: '检测器', revision: '修订号', rule: '规则', region: '区域', source: '输入源', idsSampled: '抽查标识', idsSplit: '跨分区标识', partitions: '分区', standing: '状态', alertId: '告警',
    s_open: '未解除', s_held: '保持', s_resolved: '已解除', heldNote: '此后无新数据：告警保持，不表示已经结束。', goneNote: '此告警已解除，关闭前保留在此。', why: '告警依据', extentList: '所含路段', backToAlert: '返回告警', noMap: '地图上无位置。',
    whyLink: '{0} 辆车 {1} 个定位点，{2} 个检测器，{3} 至 {4}。', whyBasis: '速度来自{0}；置信度 {1}。', whyPrior: '自由流与常态速度由限速和道路等级假定：未加载历史基线。', whyBaseline: '自由流与常态速度取自基线 {0}。',
    whyKeying: '抽查 {1} 个标识，其中 {0} 个出现在多个分区，{2} 至 {3}。',
    towards: '往{0}', between: '{0} → {1}', comingFrom: '自{0}', ramp: '{0}匝道', motorway: '高速公路', trunk: '快速路', primary: '主干路', secondary: '次干路', tertiary: '支路', unclassified: '一般道路', residential: '居住区道路', living_street: '生活街道', busway: '公交专用路', service: '服务道路',
    dir0: '向东', dir1: '向东北', dir2: '向北', dir3: '向西北', dir4: '向西', dir5: '向西南', dir6: '向南', dir7: '向东南', opened: '新告警', resolved: '告警解除',
    congestion: '拥堵', queue: '排队', incident_suspected: '疑似事件', closure_suspected: '疑似封闭', corridor_delay: '通道延误', region_index_high: '拥堵指数过高',
    sensor_fault: '检测器故障', feed_outage: '数据源中断', coverage_lost: '覆盖丢失', split_identity: '标识分裂', minor: '一般', moderate: '较重', major: '严重', critical: '特别严重',
  },
};

const $ = id => document.getElementById(id);
const store = { get: key => { try { return localStorage.getItem(key); } catch { return null; } }, set: (key, value) => { try { localStorage.setItem(key, value); } catch { /* storage may be off */ } } };
let lang = store.get('viaflux.lang') ?? (navigator.language?.startsWith('zh') ? 'zh' : 'en');
const t = (key, ...args) => args.reduce((text, arg, i) => text.replace(`{${i}}`, () => arg), TEXT[lang][key] ?? String(key ?? ''));
const known = value => value !== null && value !== undefined && Number.isFinite(Number(value));
const locale = () => (lang === 'zh' ? 'zh-CN' : 'en-GB');
const num = (value, digits = 0, unit = '') => (known(value) ? Number(value).toLocaleString(locale(), { minimumFractionDigits: digits, maximumFractionDigits: digits }) + unit : '–');
const pct = value => (known(value) ? num(value * 100, 0, '\u00a0%') : '–');
const clock = (iso, seconds) => (iso ? new Date(iso).toLocaleTimeString(locale(), { hour: '2-digit', minute: '2-digit', second: seconds ? '2-digit' : undefined, hour12: false }) : '–');
const span = s => (!known(s) ? '–' : s < 100 ? `${Math.round(s)} s` : s < 6000 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`);
const metres = m => (!known(m) ? '–' : m < 1000 ? num(m, 0, '\u00a0m') : num(m / 1000, 1, '\u00a0km'));
// Text from the data enters the page as text only, never as markup.
const el = (tag, cls, ...kids) => { const e = document.createElement(tag); if (cls) e.className = cls; e.append(...kids); return e; };
const facts = (dl, rows) => dl.replaceChildren(...rows.filter(row => row[1] !== undefined && row[1] !== '–').flatMap(([k, v]) => [el('dt', '', t(k)), el('dd', '', v)]));

// ---- data ----
let segments = [], byId = new Map(), regions = new Map(), alerts = new Map(), status = null, statusAt = 0, newest = 0, mapVersion = null;
const revisions = new Map(), indexTrail = [];
// An alert that is picked is kept as it was last seen, so that it does not vanish under the reader when it resolves.
let link = 'connecting', loaded = false, loadError = '', selected = null, picked = null;

// Of the speed at which a level begins and ends, in percent of free flow.
const BOUNDS = { free_flow: '≥\u00a090\u00a0%', heavy: '75–90\u00a0%', slow: '25–75\u00a0%', queuing: '10–25\u00a0%', stationary: '<\u00a010\u00a0%' };
const levelOf = seg => {
  const s = seg.state;
  return !s || s.basis === 'none' || newest - seg.end > OUTDATED_MS || !LEVELS.includes(s.level) ? 'unknown' : s.level;
};

const basisOf = seg => (levelOf(seg) === 'unknown' ? 'none' : seg.state.basis);
// Seconds before the time of the newest data; a state says its age at the end of its own window.
const observedS = seg => (known(seg.state?.age_s) ? seg.state.age_s + Math.max(0, newest - seg.end) / 1000 : null);

function applyState(s) {
  const seg = byId.get(s.segment_id);
  const end = Date.parse(s.window_end);
  // A reader never goes back: not to an older window, nor from a final state to a provisional one of the same window.
  if (!seg || (seg.state && (end < seg.end || (end === seg.end && s.provisional && !seg.state.provisional)))) return;
  seg.state = s;
  seg.end = end;
  newest = Math.max(newest, end || 0);
  dirty.paths = dirty.lists = true;
}

function applyAlert(a, announce) {
  if ((revisions.get(a.alert_id) ?? 0) >= a.revision) return;
  const isNew = !revisions.has(a.alert_id);
  revisions.set(a.alert_id, a.revision);
  if (a.transition === 'resolved') alerts.delete(a.alert_id); else alerts.set(a.alert_id, a);
  if (picked?.alert_id === a.alert_id) picked = a;
  if (announce && (isNew || a.transition === 'resolved')) spoken.push(`${t(isNew ? 'opened' : 'resolved')}: ${t(a.type)}, ${placeOf(a)}`);
  dirty.lists = true;
}

function applyRegion(r) {
  regions.set(r.region_id, r);
  if (r === cityRegion() && known(r.index)) { indexTrail.push(Number(r.index)); if (indexTrail.length > 240) indexTrail.shift(); }
  dirty.lists = true;
}

// Words for a place: what it is called, and which of the many pieces of that name it is.
const classOf = s => (!s.roadClass ? '' : s.roadClass.endsWith('_link') ? t('ramp', t(s.cls)) : t(s.roadClass));
const nameOf = s => s.name || (s.roadClass ? t('noName', classOf(s)) : t('unnamed'));
const stretchOf = a => (a.place?.segment_ids ?? []).map(id => byId.get(id)).filter(Boolean);
const placeOf = a => { const first = stretchOf(a)[0]; return a.place?.name || (first ? nameOf(first) : a.place?.region ?? a.evidence?.source ?? ''); };
function whereOf(list) {
  if (!list.length) return '';
  const from = list[0].from, to = list.at(-1).to, [ax, ay] = list[0].pts[0], [bx, by] = list.at(-1).pts.at(-1);
  const compass = ax === bx && ay === by ? '' : t(`dir${(Math.round(Math.atan2(by - ay, bx - ax) / (Math.PI / 4)) + 8) % 8}`);
  // A way between two pieces of one street says nothing as "A → A".
  const streets = from && to && from !== to ? t('between', from, to) : to ? t('towards', to) : from ? t('comingFrom', from) : '';
  return [compass, streets].filter(Boolean).join(' · ');
}
const lengthOf = r => Object.values(r.length_m_by_level ?? {}).reduce((sum, m) => sum + (Number(m) || 0), 0);
// The city is the region that holds the most road.
const cityRegion = () => [...regions.values()].reduce((best, r) => (!best || lengthOf(r) > lengthOf(best) ? r : best), null);

async function ask(path) {
  const answer = await fetch(path, { headers: { accept: 'application/geo+json, application/json' }, signal: AbortSignal.timeout(30_000) });
  if (!answer.ok) throw new Error((await answer.json().catch(() => null))?.detail ?? `${path}: ${answer.status}`);
  return answer.json();
}

async function load() {
  const [net, st] = await Promise.all([ask('/api/v1/network'), ask('/api/v1/status')]);
  takeStatus(st);
  buildNetwork(net);
  let path = '/api/v1/segments?limit=20000';
  for (let cursor = ''; cursor !== null;) {
    const page = await ask(path + cursor);
    for (const f of page.features) applyState(f.properties);
    cursor = page.next_cursor ? `&cursor=${encodeURIComponent(page.next_cursor)}` : null;
  }
  const [open, areas] = await Promise.all([ask('/api/v1/alerts?state=open'), ask('/api/v1/regions')]);
  alerts.clear();
  revisions.clear(); // what was resolved while we were away must not stay
  for (const a of listOf(open, 'alerts')) applyAlert(a, false);
  if (picked && !alerts.has(picked.alert_id)) picked = { ...picked, transition: 'resolved' };
  for (const r of listOf(areas, 'regions')) applyRegion(r);
  loaded = true;
  loadError = '';
}
const listOf = (answer, key) => (Array.isArray(answer) ? answer : answer[key] ?? answer.items ?? []);

function takeStatus(s) { status = s; statusAt = performance.now(); dirty.lists = true; }
let misses = 0;
async function pollStatus() {
  try {
    takeStatus(await ask('/api/v1/status'));
    misses = 0;
    if (loaded && status.map_version !== mapVersion) await load(); // the engine came back with another map
  } catch {
    // A connection that died without a word keeps its stream open for ever: two unanswered questions end it.
    if (++misses >= 2 && link === 'live') { source?.close(); link = 'lost'; again(); }
  }
}

let source = null, retryMs = 1000;
function follow() {
  const stream = source = new EventSource('/api/v1/stream?topics=state,alert,index');
  // The stream opens before the snapshot is asked for, and waits for it, so that nothing falls between the two.
  let held = [];
  const take = fn => event => { let data; try { data = JSON.parse(event.data); } catch { return; } if (held) held.push(() => fn(data)); else fn(data); };
  stream.addEventListener('states', take(list => list.forEach(applyState)));
  stream.addEventListener('alert', take(a => applyAlert(a, loaded)));
  stream.addEventListener('index', take(applyRegion));
  // Not left to the browser: a gap longer than the server's ring needs a new snapshot, and a refusal ends its own tries.
  const fail = async error => {
    stream.close();
    if (stream !== source) return;
    source = null;
    link = loaded ? 'lost' : 'connecting';
    loadError = error?.message ?? await ask('/api/v1/status').then(() => '/api/v1/stream', e => e.message);
    again();
  };
  stream.onerror = () => fail();
  stream.onopen = async () => {
    try { await load(); } catch (error) { return fail(error); }
    if (stream !== source) return;
    held.forEach(apply => apply());
    held = null;
    link = 'live';
    retryMs = 1000;
    dirty.lists = true;
  };
}
function again() {
  dirty.lists = true;
  setTimeout(follow, retryMs * (0.75 + Math.random() / 2));
  retryMs = Math.min(RETRY_MAX_MS, retryMs * 2);
}

// ---- map ----
const canvas = $('map'), ctx = canvas.getContext('2d');
const view = { x: 0, y: 0, k: 0.1 }; // metres from the origin, y to the north; pixels per metre
const dirty = { paths: true, lists: true, frame: true };
const spoken = [];
let origin = null, bounds = null, cells = new Map(), buckets = [], colours = {}, offsetStep = null, hover = null;
const CELL_M = 250;
const WIDTH = { motorway: 4.6, trunk: 4.2, primary: 3.6, secondary: 3, tertiary: 2.3 };
const mercator = lat => Math.log(Math.tan(Math.PI / 4 + lat * Math.PI / 360));

function buildNetwork(net) {
  if (mapVersion !== null && mapVersion === net.map_version) return;
  $('credit').textContent = net.attribution ?? '© OpenStreetMap contributors';
  let box = [180, 90, -180, -90];
  for (const f of net.features) for (const [lon, lat] of f.geometry.coordinates) box = [Math.min(box[0], lon), Math.min(box[1], lat), Math.max(box[2], lon), Math.max(box[3], lat)];
  const lat0 = (box[1] + box[3]) / 2, scale = 6371008.8 * Math.cos(lat0 * Math.PI / 180);
  origin = { lon: (box[0] + box[2]) / 2, y: mercator(lat0), scale };
  bounds = [...project([box[0], box[1]]), ...project([box[2], box[3]])];
  segments = net.features.map(f => {
    const p = f.properties, cls = String(p.road_class ?? '').replace(/_link$/, '');
    const pts = f.geometry.coordinates.map(project);
    let length = 0;
    for (let i = 1; i < pts.length; i++) length += Math.hypot(pts[i][0] - pts[i - 1][0], pts[i][1] - pts[i - 1][1]);
    return { id: p.segment_id, name: p.name || '', from: p.from_street || '', to: p.to_street || '', cls, roadClass: p.road_class, pts, length, width: WIDTH[cls] ?? 1.5, state: null, end: 0 };
  });
  byId = new Map(segments.map(s => [s.id, s]));
  cells = new Map();
  for (const s of segments) for (const key of cellsOf(s.pts)) { const list = cells.get(key); if (list) list.push(s); else cells.set(key, [s]); }
  selected = picked = null;
  mapVersion = net.map_version;
  offsetStep = null;
  resize();
  fromHash() || fit(bounds);
}
const project = ([lon, lat]) => [(lon - origin.lon) * Math.PI / 180 * origin.scale, (mercator(lat) - origin.y) * origin.scale];
const unproject = ([x, y]) => [origin.lon + x / origin.scale * 180 / Math.PI, Math.atan(Math.sinh(y / origin.scale + origin.y)) * 180 / Math.PI];
const cellKey = (i, j) => i * 100_003 + j;
function cellsOf(pts) {
  const keys = new Set();
  for (let i = 1; i < pts.length; i++) {
    const [[ax, ay], [bx, by]] = [pts[i - 1], pts[i]];
    for (let cx = Math.floor(Math.min(ax, bx) / CELL_M); cx <= Math.floor(Math.max(ax, bx) / CELL_M); cx++)
      for (let cy = Math.floor(Math.min(ay, by) / CELL_M); cy <= Math.floor(Math.max(ay, by) / CELL_M); cy++) keys.add(cellKey(cx, cy));
  }
  return keys;
}

const zoomFactor = () => Math.max(0.5, Math.min(2.2, 1.1 + 0.19 * Math.log2(view.k)));
// Both directions of a road share a shape, so each is drawn to the right of it by half its width.
function shifted(s, metresRight) {
  return s.pts.map(([x, y], i) => {
    const [px, py] = s.pts[Math.max(0, i - 1)], [nx, ny] = s.pts[Math.min(s.pts.length - 1, i + 1)];
    const dx = nx - px, dy = ny - py, l = Math.hypot(dx, dy) || 1;
    return [x + dy / l * metresRight, y - dx / l * metresRight];
  });
}

function buildPaths() {
  // The shift is a matter of pixels: it is worked out anew for every half zoom step, not for every frame.
  const step = Math.round(Math.log2(view.k) * 2) / 2;
  if (!dirty.paths && step === offsetStep) return;
  if (step !== offsetStep) for (const s of segments) s.drawn = shifted(s, Math.max(0.3, s.width * 0.55 * zoomFactor()) / 2 ** step);
  offsetStep = step;
  dirty.paths = false;
  const byLook = new Map();
  for (const s of segments) {
    const level = levelOf(s), rank = LEVELS.indexOf(level), basis = basisOf(s);
    // What is measured now lies above what is not.
    const key = rank * 1000 + s.width * 10 + ['none', 'typical', 'blended', 'live'].indexOf(basis);
    let look = byLook.get(key);
    if (!look) byLook.set(key, look = { key, level, rank, basis, width: s.width, path: new Path2D() });
    s.drawn.forEach(([x, y], i) => (i ? look.path.lineTo(x, y) : look.path.moveTo(x, y)));
  }
  buckets = [...byLook.values()].sort((a, b) => a.key - b.key);
}

function toScreen([x, y]) { return [canvas.clientWidth / 2 + (x - view.x) * view.k, canvas.clientHeight / 2 - (y - view.y) * view.k]; }
function toWorld(px, py) { return [view.x + (px - canvas.clientWidth / 2) / view.k, view.y - (py - canvas.clientHeight / 2) / view.k]; }

function draw() {
  const ratio = devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight, zf = zoomFactor();
  ctx.setTransform(1, 0, 0, 1, 0, 0);
  ctx.fillStyle = colours.map;
  ctx.fillRect(0, 0, canvas.width, canvas.height);
  if (!segments.length) return;
  buildPaths();
  const world = () => ctx.setTransform(view.k * ratio, 0, 0, -view.k * ratio, (w / 2 - view.x * view.k) * ratio, (h / 2 + view.y * view.k) * ratio);
  world();
  ctx.lineJoin = 'round';
  for (const b of buckets) {
    const closed = b.level === 'closed', measured = b.basis === 'live' || closed;
    const px = (b.level === 'unknown' ? 0.45 : (0.8 + 0.13 * b.rank) * (measured ? 1 : 0.5)) * b.width * zf;
    ctx.globalAlpha = (staleness() ? 0.4 : 1) * (measured || b.level === 'unknown' ? 1 : 0.75);
    ctx.lineCap = b.basis === 'typical' ? 'butt' : 'round';
    // Closed is dotted (round caps on dashes without length), the usual speed is dashed.
    ctx.setLineDash(closed ? [0.01 / view.k, 1.7 * px / view.k] : b.basis === 'typical' ? [6 / view.k, 4 / view.k] : []);
    if (b.rank >= 3 && measured && !closed) { ctx.lineWidth = (px + 2) / view.k; ctx.strokeStyle = colours.map; ctx.stroke(b.path); } // casing
    ctx.lineWidth = Math.max(px, 0.6) / view.k;
    ctx.strokeStyle = colours[b.level];
    ctx.stroke(b.path);
  }
  ctx.setLineDash([]);
  ctx.globalAlpha = 1;
  const stretch = picked ? stretchOf(picked) : [];
  if (stretch.length && picked.place?.head) { // the line from the mark to the stretch that it stands for
    const path = new Path2D(), [hx, hy] = project(picked.place.head), end = stretch.at(-1).drawn.at(-1);
    path.moveTo(hx, hy); path.lineTo(...end);
    ctx.lineWidth = 3 / view.k; ctx.strokeStyle = colours.accent; ctx.stroke(path);
  }
  for (const s of [...stretch, selected, hover]) {
    if (!s) continue;
    const px = s.width * zf * 1.3, path = new Path2D();
    s.drawn.forEach(([x, y], i) => (i ? path.lineTo(x, y) : path.moveTo(x, y)));
    ctx.lineCap = 'round';
    for (const [extra, colour] of [[7, colours.map], [4.5, colours.accent], [0.5, colours[levelOf(s)]]]) { ctx.lineWidth = (px + extra) / view.k; ctx.strokeStyle = colour; ctx.stroke(path); }
  }
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  drawNames(w, h);
  for (const a of [...alerts.values()].sort((a, b) => SEVERITY.indexOf(a.severity) - SEVERITY.indexOf(b.severity))) drawAlert(a);
  drawScale(h);
}

function drawNames(w, h) {
  if (view.k < 0.09) return;
  ctx.font = '11px system-ui, "Noto Sans CJK SC", sans-serif';
  ctx.textAlign = 'center'; ctx.textBaseline = 'middle'; ctx.lineWidth = 3; ctx.strokeStyle = colours.map; ctx.fillStyle = colours.dim;
  const least = view.k > 0.6 ? 0 : view.k > 0.25 ? 2.3 : 3, placed = [];
  const longFirst = segments.filter(s => s.name && s.width >= least && s.length * view.k > 26).sort((a, b) => b.width - a.width || b.length - a.length);
  for (const s of longFirst) {
    const mid = s.pts.length >> 1, [x, y] = toScreen(s.pts[mid]), [px, py] = toScreen(s.pts[mid - 1] ?? s.pts[mid]);
    if (x < 0 || y < 0 || x > w || y > h || placed.some(p => Math.hypot(p.x - x, p.y - y) < (p.name === s.name ? 320 : 62))) continue;
    let angle = Math.atan2(y - py, x - px);
    if (Math.abs(angle) > Math.PI / 2) angle += Math.PI;
    placed.push({ x, y, name: s.name });
    ctx.save(); ctx.translate(x, y); ctx.rotate(angle); ctx.strokeText(s.name, 0, -10); ctx.fillText(s.name, 0, -10); ctx.restore();
    if (placed.length > 60) break;
  }
}

function drawAlert(a) {
  if (!a.place?.head || !origin) return;
  const [x, y] = toScreen(project(a.place.head)), strong = a.severity === 'major' || a.severity === 'critical', r = a.alert_id === picked?.alert_id ? 13 : 10;
  ctx.beginPath();
  if (a.severity === 'critical') ctx.rect(x - r, y - r, 2 * r, 2 * r); else ctx.arc(x, y, r, 0, 2 * Math.PI);
  ctx.fillStyle = strong ? colours.bad : colours.panel; ctx.fill();
  ctx.lineWidth = 2; ctx.strokeStyle = strong ? colours.badInk : colours.warn; ctx.stroke();
  ctx.fillStyle = strong ? colours.badInk : colours.warn; ctx.font = 'bold 13px system-ui'; ctx.textAlign = 'center'; ctx.textBaseline = 'middle';
  ctx.fillText(a.stale ? '?' : '!', x, y + 0.5);
}

function drawScale(h) {
  const m = [20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000].find(v => v * view.k >= 60) ?? 50000;
  ctx.fillStyle = ctx.strokeStyle = colours.dim; ctx.lineWidth = 1.5; ctx.font = '11px system-ui'; ctx.textAlign = 'left'; ctx.textBaseline = 'alphabetic';
  ctx.beginPath(); ctx.moveTo(14, h - 16); ctx.lineTo(14, h - 11); ctx.lineTo(14 + m * view.k, h - 11); ctx.lineTo(14 + m * view.k, h - 16); ctx.stroke();
  ctx.fillText(metres(m).replace('.0', ''), 18, h - 17);
}

function moved() {
  dirty.frame = true;
  clearTimeout(moved.timer);
  moved.timer = setTimeout(() => { const [lon, lat] = unproject([view.x, view.y]); history.replaceState(null, '', `#${Math.log2(view.k).toFixed(2)}/${lat.toFixed(5)}/${lon.toFixed(5)}${selected ? `/${selected.id}` : ''}`); }, 250);
}
function fromHash() {
  const [z, lat, lon, id] = location.hash.slice(1).split('/');
  if (![z, lat, lon].every(v => v && Number.isFinite(Number(v)))) return false;
  view.k = Math.min(4, Math.max(0.002, 2 ** Number(z)));
  [view.x, view.y] = project([Number(lon), Number(lat)]);
  if (byId.has(id)) select(byId.get(id));
  return true;
}
function zoomAt(factor, px = canvas.clientWidth / 2, py = canvas.clientHeight / 2) {
  const [x, y] = toWorld(px, py);
  view.k = Math.min(4, Math.max(0.002, view.k * factor));
  const [nx, ny] = toWorld(px, py);
  view.x += x - nx; view.y += y - ny;
  moved();
}
// Fits into the part of the map that the open panel leaves free: to its right, or above it where it is a sheet.
function fit([x0, y0, x1, y1], closest = 4) {
  const map = canvas.getBoundingClientRect(), panel = $('detail').getBoundingClientRect(), open = !$('detail').hidden, sheet = panel.width > 0.7 * map.width;
  const left = open && !sheet ? panel.right - map.left : 0, below = open && sheet ? Math.max(0, Math.min(map.bottom - panel.top, 0.6 * map.height)) : 0;
  view.k = Math.min(closest, 0.92 * Math.min((map.width - left) / Math.max(1, x1 - x0), (map.height - below) / Math.max(1, y1 - y0)));
  view.x = (x0 + x1) / 2 - left / 2 / view.k; view.y = (y0 + y1) / 2 - below / 2 / view.k;
  moved();
}
function fitSegments(list) {
  const pts = list.flatMap(s => s.pts);
  if (!pts.length) return;
  const xs = pts.map(p => p[0]), ys = pts.map(p => p[1]);
  fit([Math.min(...xs) - 300, Math.min(...ys) - 300, Math.max(...xs) + 300, Math.max(...ys) + 300], 0.7);
}
function segmentAt(px, py) {
  const [x, y] = toWorld(px, py), reach = 9 / view.k, seen = new Set();
  let best = null, bestD = reach;
  for (let i = Math.floor((x - reach) / CELL_M); i <= Math.floor((x + reach) / CELL_M); i++)
    for (let j = Math.floor((y - reach) / CELL_M); j <= Math.floor((y + reach) / CELL_M); j++)
      for (const s of cells.get(cellKey(i, j)) ?? []) {
        if (seen.has(s) || !s.drawn) continue;
        seen.add(s);
        for (let n = 1; n < s.drawn.length; n++) {
          const [ax, ay] = s.drawn[n - 1], [bx, by] = s.drawn[n], dx = bx - ax, dy = by - ay;
          const u = Math.max(0, Math.min(1, ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1))), d = Math.hypot(x - ax - u * dx, y - ay - u * dy);
          if (d < bestD) { bestD = d; best = s; }
        }
      }
  return best;
}
const alertAt = (px, py) => [...alerts.values()].find(a => a.place?.head && Math.hypot(...toScreen(project(a.place.head)).map((v, i) => v - [px, py][i])) < 13);

const pointers = new Map();
let pinch = 0, dragged = 0;
canvas.addEventListener('pointerdown', e => { canvas.setPointerCapture(e.pointerId); pointers.set(e.pointerId, [e.offsetX, e.offsetY]); dragged = pinch = 0; });
canvas.addEventListener('pointermove', e => {
  const at = pointers.get(e.pointerId);
  if (!at) return showTip(e.offsetX, e.offsetY);
  pointers.set(e.pointerId, [e.offsetX, e.offsetY]);
  const dx = e.offsetX - at[0], dy = e.offsetY - at[1];
  dragged += Math.hypot(dx, dy);
  view.x -= dx / view.k / pointers.size; view.y += dy / view.k / pointers.size;
  if (pointers.size === 2) { const [[ax, ay], [bx, by]] = [...pointers.values()], d = Math.hypot(ax - bx, ay - by); if (pinch) zoomAt(d / pinch, (ax + bx) / 2, (ay + by) / 2); pinch = d; }
  $('tip').hidden = true;
  moved();
});
canvas.addEventListener('pointerup', e => {
  pointers.delete(e.pointerId);
  if (dragged > 5 || pointers.size || !origin) return;
  const a = alertAt(e.offsetX, e.offsetY);
  if (a) pickAlert(a, false); else select(segmentAt(e.offsetX, e.offsetY));
});
canvas.addEventListener('pointercancel', e => pointers.delete(e.pointerId));
canvas.addEventListener('pointerleave', () => { hover = null; $('tip').hidden = true; dirty.frame = true; });
canvas.addEventListener('wheel', e => { e.preventDefault(); zoomAt(2 ** (-e.deltaY / (e.deltaMode ? 12 : 400)), e.offsetX, e.offsetY); }, { passive: false });
canvas.addEventListener('keydown', e => {
  const step = 80 / view.k, act = { ArrowLeft: () => { view.x -= step; }, ArrowRight: () => { view.x += step; }, ArrowUp: () => { view.y += step; }, ArrowDown: () => { view.y -= step; }, '+': () => zoomAt(1.4), '=': () => zoomAt(1.4), '-': () => zoomAt(1 / 1.4), 0: () => bounds && fit(bounds) }[e.key];
  if (act && !e.ctrlKey && !e.metaKey && origin) { e.preventDefault(); act(); moved(); }
});
function showTip(px, py) {
  const a = origin && alertAt(px, py), s = origin && !a ? segmentAt(px, py) : null, tip = $('tip');
  canvas.style.cursor = a || s ? 'pointer' : '';
  if (hover !== s) { hover = s; dirty.frame = true; }
  tip.hidden = !a && !s;
  if (tip.hidden) return;
  tip.replaceChildren(...(a ? [el('b', '', `${t(a.type)} · ${t(a.severity)}`), placeOf(a), el('span', 'note', whereOf(stretchOf(a)))]
    : [el('b', '', nameOf(s)), `${t(levelOf(s))}${levelOf(s) === 'unknown' ? '' : ` · ${num(s.state.current_speed_kph, 0, ' km/h')} · ${t(`b_${s.state.basis}`)}`}`, el('span', 'note', whereOf([s]))]));
  tip.style.left = `${Math.min(px + 14, canvas.clientWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.min(py + 14, canvas.clientHeight - tip.offsetHeight - 8)}px`;
}

// ---- panels ----
// The panel shows a segment or an alert; one segment of an alert's stretch keeps the alert, as the way back.
let opener = null; // list and row from which the panel was opened
function select(s, ofAlert = null) { selected = s; picked = ofAlert; showPanel(); }
function pickAlert(a, fly) {
  selected = null;
  picked = a;
  showPanel();
  if (fly) reveal(stretchOf(a));
}
function showPanel() {
  dirty.lists = dirty.frame = true;
  $('detail').hidden = !selected && !picked;
  $('d-zoom').hidden = !selected && !(picked && stretchOf(picked).length);
  if (!$('detail').hidden) { $('detail').scrollTop = 0; showDetail(); }
  if (origin) moved();
}
// On a small screen the map may be out of view.
function reveal(list) {
  if (getComputedStyle($('detail')).position === 'fixed') $('map-box').scrollIntoView({ block: 'start' });
  fitSegments(list);
}
// Opened from a list, the panel takes the focus, and closing gives it back to the row.
function openFrom(list, key, show) {
  opener = { list, key };
  show();
  $('detail').focus({ preventScroll: true });
}
function closeDetail() {
  const back = opener && [...$(opener.list).querySelectorAll('button')].find(b => b.dataset.key === opener.key);
  opener = null;
  select(null);
  if (back) back.focus(); else canvas.focus({ preventScroll: true });
}
function write(target, ...kids) { // the focus inside survives the rewriting
  const at = [...target.querySelectorAll('button')].indexOf(document.activeElement);
  target.replaceChildren(...kids);
  if (at >= 0) target.querySelectorAll('button')[at]?.focus();
}
function button(text, action) { const b = el('button', 'plain', text); b.type = 'button'; b.addEventListener('click', action); return b; }
function showDetail() { if (selected) showSegment(); else showAlert(); }

function showSegment() {
  const s = selected.state, level = levelOf(selected), age = observedS(selected), alert = picked;
  $('t-detail').textContent = nameOf(selected);
  $('d-where').textContent = whereOf([selected]);
  $('d-sub').textContent = [t(level), classOf(selected), metres(selected.length)].filter(Boolean).join(' · ');
  $('d-tags').replaceChildren(...(basisOf(selected) === 'blended' || basisOf(selected) === 'typical' ? [el('span', 'tag', t(`r_${s.basis}`))] : []));
  facts($('d-facts'), [
    ['speed', num(s?.current_speed_kph, 1, ' km/h')], ['freeSpeed', num(s?.free_flow_speed_kph, 1, ' km/h')], ['typicalSpeed', num(s?.typical_speed_kph, 1, ' km/h')], ['ratio', pct(s?.speed_ratio)],
    ['time', span(s?.current_travel_time_s)], ['delay', span(s?.delay_s)], ['trend', s?.trend ? t(s.trend) : undefined], ['grade', s?.grade ? TEXT[lang][`g_${s.grade}`] ?? s.grade : undefined],
    ['basis', s ? t(`b_${s.basis}`) : t('b_none')], ['observed', known(age) ? t('ago', span(age)) : t('never')], ['confidence', pct(s?.confidence)], ['vehicles', num(s?.vehicle_count)], ['samples', num(s?.sample_count)], ['sensor', pct(s?.sensor_share)],
    ['window', s ? `${clock(s.window_start)} – ${clock(s.window_end)}` : undefined], ['state', s ? t(s.provisional ? 'provisional' : s.partial ? 'partial' : 'final') : undefined], ['id', selected.id]]);
  write($('d-more'), ...(alert ? [button(`← ${t('backToAlert')}`, () => { pickAlert(alert, false); $('detail').focus({ preventScroll: true }); })] : []));
}

// Time of day, with the day where it is not the day of the data.
const moment = iso => (!iso ? '–' : new Date(iso).toDateString() === new Date(newest).toDateString() ? clock(iso) : `${new Date(iso).toLocaleDateString(locale())} ${clock(iso)}`);
function showAlert() {
  const a = picked, v = a.values ?? {}, e = a.evidence ?? {}, stretch = stretchOf(a), gone = a.transition === 'resolved', onset = Date.parse(a.starts_at);
  const until = gone && a.ends_at ? Date.parse(a.ends_at) : newest, [from, to] = (e.windows?.[0] ?? '').split('/');
  // The usual speed over the stretch: its length by the sum of the usual travel times.
  const usual = stretch.length && stretch.every(s => s.state?.typical_speed_kph > 0) ? stretch.reduce((m, s) => m + s.length, 0) / stretch.reduce((h, s) => h + s.length / s.state.typical_speed_kph, 0) : null;
  $('t-detail').textContent = placeOf(a) || t(a.type);
  $('d-where').textContent = whereOf(stretch) || t('noMap');
  $('d-sub').textContent = '';
  $('d-tags').replaceChildren(el('span', `tag ${a.severity}`, t(a.severity)), el('span', 'tag', t(a.type)), ...(gone || a.stale ? [el('span', 'tag', t(gone ? 's_resolved' : 's_held'))] : []));
  facts($('d-facts'), [
    ['cause', a.cause ? t(a.cause) : undefined], ['standing', t(gone ? 's_resolved' : a.stale ? 's_held' : 's_open')],
    ['onset', moment(a.starts_at)], ['lasting', span(Math.max(0, until - onset) / 1000)], ['ended', gone ? moment(a.ends_at) : undefined], ['updated', moment(a.updated_at)],
    ['delayAll', known(v.delay_s) ? t('perVehicle', span(v.delay_s)) : undefined], ['extent', metres(a.place?.length_m ?? undefined)],
    ['speed', num(v.speed_kph, 1, ' km/h')], ['against', num(usual, 1, ' km/h')], ['ratio', pct(v.speed_ratio)],
    ['vehicles', num(e.vehicle_count)], ['samples', num(e.sample_count)], ['sensors', num(e.sensor_count)], ['confidence', pct(e.confidence)],
    ['source', e.source], ['idsSampled', num(e.ids_sampled)], ['idsSplit', num(e.ids_split)], ['partitions', e.partitions?.join(', ')],
    ['region', a.place?.region ?? undefined], ['revision', num(a.revision)], ['rule', a.rule ? `${a.rule}${known(a.rule_version) ? ` / ${a.rule_version}` : ''}` : undefined], ['alertId', a.alert_id]]);
  const why = known(e.vehicle_count) ? [t('whyLink', num(e.vehicle_count), num(e.sample_count), num(e.sensor_count), clock(from), clock(to)), t('whyBasis', t(`b_${e.basis}`), pct(e.confidence)), e.baseline === 'prior' ? t('whyPrior') : e.baseline ? t('whyBaseline', e.baseline) : '']
    : known(e.ids_split) ? [t('whyKeying', num(e.ids_split), num(e.ids_sampled), clock(from), clock(to))] : [];
  const held = gone ? t('goneNote') : a.stale ? t('heldNote') : '';
  write($('d-more'), ...(held ? [el('p', 'held', held)] : []), ...(why.length ? [el('h3', '', t('why')), el('p', '', why.filter(Boolean).join(' '))] : []),
    ...(stretch.length ? [el('h3', '', t('extentList')), el('ul', '', ...stretch.map(s => { const b = button('', () => { select(s, a); $('detail').focus({ preventScroll: true }); }); b.append(el('span', `key ${levelOf(s)}`), el('span', 'name', `${metres(s.length)} · ${t(levelOf(s))}`), el('span', 'num', num(s.state?.current_speed_kph, 0, ' km/h')), el('span', 'more', [nameOf(s), whereOf([s])].join(' · '))); return el('li', '', b); }))] : []));
}

// Lists are written anew; the focus is put back on the row it was on.
function fill(list, rows, empty) {
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  list.replaceChildren(...(rows.length ? rows : [el('li', 'empty', empty)]));
  if (focused) [...list.querySelectorAll('button')].find(b => b.dataset.key === focused)?.focus();
}
function row(key, mark, name, value, more, pressed, action) {
  const b = el('button', '', mark, el('span', 'name', name), el('span', 'num', value), el('span', 'more', ...more[0]), ...more.slice(1).filter(Boolean).map(line => el('span', 'more', line)));
  b.type = 'button'; b.dataset.key = key; b.setAttribute('aria-pressed', String(pressed)); b.addEventListener('click', action);
  return el('li', '', b);
}
const SEVERITY = ['minor', 'moderate', 'major', 'critical'];
const RANK = {
  delay: s => -(s.delay_s ?? 0),
  ratio: s => s.speed_ratio ?? 9,
  typical: s => (known(s.typical_speed_kph) && s.typical_speed_kph > 0 && known(s.current_speed_kph) ? s.current_speed_kph / s.typical_speed_kph : 9),
};

function showLists() {
  dirty.lists = false;
  const open = [...alerts.values()].sort((a, b) => SEVERITY.indexOf(b.severity) - SEVERITY.indexOf(a.severity) || (a.starts_at < b.starts_at ? 1 : -1));
  $('alert-count').textContent = num(open.length);
  fill($('alerts'), open.map(a => {
    const v = a.values ?? {}, more = [t(a.type), t(a.severity), a.place?.length_m ? metres(a.place.length_m) : '', known(v.delay_s) ? `+${span(v.delay_s)}` : '', t('since', clock(a.starts_at))].filter(Boolean).join(' · ');
    return row(a.alert_id, el('span', `sev ${a.severity}`, a.stale ? '?' : '!'), placeOf(a) || t(a.type), num(v.speed_kph, 0, ' km/h').replace('–', ''), [[more, ...(a.stale ? [el('span', 'tag', t('staleTag'))] : [])], whereOf(stretchOf(a))], a.alert_id === picked?.alert_id, () => openFrom('alerts', a.alert_id, () => pickAlert(a, true)));
  }), t('noAlerts'));

  const key = RANK[$('rank').value], slow = segments.filter(s => LEVELS.indexOf(levelOf(s)) >= 3 && (s.state.basis === 'live' || s.state.basis === 'blended'));
  slow.sort((a, b) => key(a.state) - key(b.state) || (a.id < b.id ? -1 : 1));
  fill($('worst'), slow.slice(0, 30).map(s => row(s.id, el('span', `key ${levelOf(s)}`), nameOf(s), num(s.state.current_speed_kph, 0, ' km/h'),
    [[`${t(levelOf(s))} · ${pct(s.state.speed_ratio)} · +${span(s.state.delay_s)} · ${metres(s.length)}`], whereOf([s]), s.state.basis === 'blended' ? `${t('b_blended')} · ${t('ago', span(observedS(s)))}` : ''],
    s === selected, () => openFrom('worst', s.id, () => { select(s); reveal([s]); }))), t('noWorst'));

  const city = cityRegion();
  $('index').textContent = num(city?.index, 1);
  $('index-mark').style.left = `${Math.max(0, Math.min(10, city?.index ?? 0)) * 10}%`;
  $('index-mark').hidden = !known(city?.index);
  $('index-note').textContent = city ? [t('scaleName', city.profile ?? '–'), city.profile_verified === false ? t('unverified') : ''].filter(Boolean).join(' ') : '';
  facts($('region-facts'), [['tti', num(city?.tti, 2)], ['mean', num(city?.mean_speed_kph, 1, ' km/h')]]);
  $('regions').replaceChildren(...[...regions.values()].filter(r => r !== city).sort((a, b) => (b.index ?? -1) - (a.index ?? -1)).map(r => el('li', '', el('span', '', r.region_id), el('strong', '', num(r.index, 1)))));
  const top = Math.max(10, ...indexTrail);
  $('spark').firstElementChild.setAttribute('points', indexTrail.map((v, i) => `${120 * i / Math.max(1, indexTrail.length - 1)},${34 - 32 * v / top}`).join(' '));

  const byLevel = Object.fromEntries(LEVELS.map(l => [l, 0]));
  byBasis = { live: 0, blended: 0, typical: 0, none: 0 };
  for (const s of segments) { byLevel[levelOf(s)] += s.length; byBasis[basisOf(s)] += s.length; }
  const all = Object.values(byLevel).reduce((a, b) => a + b, 0) || 1, order = [...LEVELS.slice(1), 'unknown'];
  $('shares').replaceChildren(...order.map(l => { const d = el('div', l); d.style.flexGrow = byLevel[l] / all; return d; }));
  $('legend').tBodies[0].replaceChildren(...order.map(l => el('tr', '', el('td', '', el('span', `key ${l}`), t(l)), el('td', '', BOUNDS[l] ?? ''), el('td', '', metres(byLevel[l])), el('td', '', pct(byLevel[l] / all)))));
  $('rests').tBodies[0].replaceChildren(...Object.keys(byBasis).filter(b => b !== 'typical' || byBasis[b] > 0).map(b => el('tr', '', el('td', '', el('span', `line ${b}`), t(`r_${b}`)), el('td', '', pct(byBasis[b] / all)))));
  if (selected || picked) showDetail();
  showVitals();
}

let byBasis = {}; // metres of road
const sinceStatus = value => (known(value) ? Number(value) + (performance.now() - statusAt) / 1000 : null);
const ageS = () => sinceStatus(status?.age_s);
const isOld = () => (sinceStatus(status?.since_last_pane_s) ?? 0) > PANE_LATE_S || (ageS() ?? 0) > AGE_MAX_S;
const staleness = () => link === 'lost' || isOld();

function showVitals() {
  const age = ageS(), old = isOld(), notReady = status?.ready === false;
  const look = link === 'lost' ? ['lost', 'lost'] : link === 'connecting' ? ['wait', 'connecting'] : old ? ['lost', 'stale'] : notReady ? ['wait', 'notReady'] : ['live', 'live'];
  $('link').className = `chip ${look[0]}`;
  if ($('link-text').textContent !== t(look[1])) $('link-text').textContent = t(look[1]);
  const pane = status?.pane_end && Date.parse(status.pane_end) > newest ? status.pane_end : newest ? new Date(newest).toISOString() : null;
  const elsewhen = pane && Math.abs(Date.now() - Date.parse(pane)) > 300_000;
  $('data-time').textContent = pane ? `${elsewhen ? `${new Date(pane).toLocaleDateString(locale())} ` : ''}${clock(pane, true)}` : '–';
  // Simulated and replayed data are not the present even where their clock happens to agree.
  $('data-when').textContent = !pane ? '' : status?.mode === 'demo' ? t('notNowDemo') : status?.mode === 'replay' ? t('notNowReplay') : elsewhen ? t('notNow') : '';
  $('data-age').textContent = span(age);
  $('data-age').className = old ? 'off' : '';
  const roads = Object.values(byBasis).reduce((a, b) => a + b, 0);
  $('coverage').replaceChildren(...(roads > 0 && newest ? Object.keys(byBasis).filter(b => b !== 'typical' || byBasis[b] > 0).flatMap(b => [`${pct(byBasis[b] / roads)} `, el('small', '', `${t(`now_${b}`)} `)]) : ['–']));
  const r = status?.records;
  $('records').textContent = r && known(r.read) && r.read > 0 ? `${num(r.used)} (${pct(r.used / r.read)})` : '–';
  const text = !loaded && loadError ? t('bannerFirst', loadError) : link === 'lost' ? t('bannerLost', span(age)) : old ? t('bannerStale', span(age ?? sinceStatus(status.since_last_pane_s))) : notReady ? t('bannerNotReady', status.reason ?? '') : '';
  if ($('banner').textContent !== text) $('banner').textContent = text; // screen readers speak on change only
  $('banner').hidden = !text;
}

function translate() {
  document.documentElement.lang = lang === 'zh' ? 'zh-CN' : 'en';
  for (const e of document.querySelectorAll('[data-t]')) e.textContent = t(e.dataset.t);
  for (const e of document.querySelectorAll('[data-l]')) { e.setAttribute('aria-label', t(e.dataset.l)); e.title = t(e.dataset.l); }
  canvas.setAttribute('aria-label', t('map'));
  $('lang').textContent = t('other');
  $('lang').lang = lang === 'zh' ? 'en' : 'zh-CN';
  dirty.lists = true;
}
function theme() {
  const css = getComputedStyle(document.documentElement), of = name => css.getPropertyValue(`--${name}`).trim();
  colours = Object.fromEntries([...LEVELS, 'map', 'panel', 'accent', 'dim', 'bad', 'warn'].map(name => [name, of(name)]));
  colours.badInk = of('bad-ink');
  dirty.frame = true;
}
function resize() {
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * ratio); canvas.height = Math.round(canvas.clientHeight * ratio);
  dirty.frame = true;
}

$('lang').addEventListener('click', () => { lang = lang === 'zh' ? 'en' : 'zh'; store.set('viaflux.lang', lang); translate(); showLists(); });
$('rank').addEventListener('change', showLists);
$('zin').addEventListener('click', () => zoomAt(1.6));
$('zout').addEventListener('click', () => zoomAt(1 / 1.6));
$('zfit').addEventListener('click', () => bounds && fit(bounds));
$('d-zoom').addEventListener('click', () => reveal(selected ? [selected] : picked ? stretchOf(picked) : []));
$('d-close').addEventListener('click', closeDetail);
addEventListener('keydown', e => { if (e.key === 'Escape' && !$('detail').hidden) closeDetail(); });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', theme);
new ResizeObserver(resize).observe(canvas);

let wasStale = false;
(function frame() {
  if (dirty.frame || dirty.paths) { dirty.frame = false; draw(); }
  requestAnimationFrame(frame);
})();
// Lists are not written anew under a finger: the click would be lost with the row that it began on.
let pressed = false;
addEventListener('pointerdown', () => { pressed = true; }, true);
for (const name of ['pointerup', 'pointercancel']) addEventListener(name, () => setTimeout(() => { pressed = false; }), true);
setInterval(() => {
  if (dirty.lists && !pressed) showLists(); else showVitals();
  if (staleness() !== wasStale) { wasStale = !wasStale; dirty.frame = true; }
}, 1000);
// At most one message in three seconds, so that a burst of alerts does not drown the reader.
setInterval(() => { if (spoken.length) $('announce').textContent = spoken.splice(0).slice(-5).join('. '); }, 3000);
setInterval(pollStatus, 5000);

theme();
translate();
follow();
