package southbound;

import java.util.ArrayList;
import java.util.Collection;
import java.util.Map;
import java.util.NavigableSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Collectors;
import org.onosproject.net.DeviceId;
import org.onosproject.net.meter.DefaultMeter;
import org.onosproject.net.meter.Meter;
import org.onosproject.net.meter.MeterEvent;
import org.onosproject.net.meter.MeterFailReason;
import org.onosproject.net.meter.MeterFeatures;
import org.onosproject.net.meter.MeterFeaturesKey;
import org.onosproject.net.meter.MeterId;
import org.onosproject.net.meter.MeterKey;
import org.onosproject.net.meter.MeterOperation;
import org.onosproject.net.meter.MeterState;
import org.onosproject.net.meter.MeterStore;
import org.onosproject.net.meter.MeterStoreDelegate;
import org.onosproject.net.meter.MeterStoreResult;
import org.onosproject.store.AbstractStore;

/**
 * The meters of all devices, in memory; a meter is there once its device has told of it. As in ONOS's own store
 * one that has failed stays, and the id of one that has gone is the first that is given again.
 */
final class Meters extends AbstractStore<MeterEvent, MeterStoreDelegate> implements MeterStore {
    private final Map<MeterKey, Meter> meters = new ConcurrentHashMap<>();
    private final Map<MeterKey, CompletableFuture<MeterStoreResult>> waiting = new ConcurrentHashMap<>();
    private final Map<DeviceId, MeterFeatures> features = new ConcurrentHashMap<>();
    private final Map<DeviceId, AtomicLong> last = new ConcurrentHashMap<>();
    private final Map<DeviceId, NavigableSet<Long>> free = new ConcurrentHashMap<>();

    private static MeterKey key(Meter meter) {
        return MeterKey.key(meter.deviceId(), meter.id());
    }

    private void answer(Meter meter, MeterStoreResult result) {
        CompletableFuture<MeterStoreResult> caller = waiting.remove(key(meter));
        if (caller != null) {
            caller.complete(result);
        }
    }

    @Override
    public CompletableFuture<MeterStoreResult> storeMeter(Meter meter) {
        CompletableFuture<MeterStoreResult> caller = new CompletableFuture<>();
        waiting.put(key(meter), caller);
        meters.put(key(meter), meter);
        notifyDelegate(new MeterEvent(MeterEvent.Type.METER_ADD_REQ, meter));
        return caller;
    }

    @Override
    public CompletableFuture<MeterStoreResult> deleteMeter(Meter meter) {
        Meter held = meters.get(key(meter));
        if (held == null) {
            return CompletableFuture.completedFuture(MeterStoreResult.success());
        }
        CompletableFuture<MeterStoreResult> caller = new CompletableFuture<>();
        ((DefaultMeter) held).setState(MeterState.PENDING_REMOVE);
        waiting.put(key(meter), caller);
        notifyDelegate(new MeterEvent(MeterEvent.Type.METER_REM_REQ, held));
        return caller;
    }

    @Override
    public CompletableFuture<MeterStoreResult> updateMeter(Meter meter) {
        meters.put(key(meter), meter);
        return CompletableFuture.completedFuture(MeterStoreResult.success());
    }

    @Override
    public Meter updateMeterState(Meter told) {
        DefaultMeter held = (DefaultMeter) meters.get(key(told));
        if (held == null) {
            return null;
        }
        held.setProcessedPackets(told.packetsSeen());
        held.setProcessedBytes(told.bytesSeen());
        held.setLife(told.life());
        held.setReferenceCount(told.referenceCount());
        if (held.state() == MeterState.PENDING_ADD) {
            held.setState(MeterState.ADDED);
            answer(held, MeterStoreResult.success());
            notifyDelegate(new MeterEvent(MeterEvent.Type.METER_ADDED, held));
        }
        return held;
    }

    @Override
    public void failedMeter(MeterOperation operation, MeterFailReason reason) {
        answer(operation.meter(), MeterStoreResult.fail(reason));
    }

    @Override
    public void deleteMeterNow(Meter meter) {
        if (meters.remove(key(meter)) != null) {
            freeMeterId(meter.deviceId(), meter.id());
            answer(meter, MeterStoreResult.success());
            notifyDelegate(new MeterEvent(MeterEvent.Type.METER_REMOVED, meter));
        }
    }

    @Override
    public Meter getMeter(MeterKey key) {
        return meters.get(key);
    }

    @Override
    public Collection<Meter> getAllMeters() {
        return new ArrayList<>(meters.values());
    }

    @Override
    public Collection<Meter> getAllMeters(DeviceId device) {
        return meters.values().stream().filter(m -> m.deviceId().equals(device)).collect(Collectors.toList());
    }

    @Override
    public void purgeMeter(DeviceId device) {
        getAllMeters(device).forEach(this::deleteMeterNow);
    }

    @Override
    public MeterStoreResult storeMeterFeatures(MeterFeatures told) {
        features.put(told.deviceId(), told);
        return MeterStoreResult.success();
    }

    @Override
    public MeterStoreResult deleteMeterFeatures(DeviceId device) {
        features.remove(device);
        return MeterStoreResult.success();
    }

    @Override
    public long getMaxMeters(MeterFeaturesKey key) {
        MeterFeatures told = features.get(key.deviceId());
        return told == null ? 0 : told.maxMeter();
    }

    /** None where the device has no meters, or has not said so, as while it is away. */
    @Override
    public MeterId allocateMeterId(DeviceId device) {
        Long again = free.computeIfAbsent(device, none -> new ConcurrentSkipListSet<>()).pollFirst();
        if (again != null) {
            return MeterId.meterId(again);
        }
        long most = getMaxMeters(MeterFeaturesKey.key(device));
        AtomicLong counter = last.computeIfAbsent(device, none -> new AtomicLong());
        if (counter.get() + 1 >= most) {
            return null;
        }
        return MeterId.meterId(counter.incrementAndGet());
    }

    @Override
    public void freeMeterId(DeviceId device, MeterId id) {
        free.computeIfAbsent(device, none -> new ConcurrentSkipListSet<>()).add(id.id());
    }
}
